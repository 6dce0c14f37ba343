//! Targets for the signed structures of profile 1.1, and for tickets and codes.

use std::sync::LazyLock;

use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use vmdt_pool::repair::share::Remark;
use vmdt_seal::announcement::{Placement, SealedDetails};
use vmdt_seal::code::Code as SpokenCode;
use vmdt_seal::descriptor::Descriptor;
use vmdt_seal::express::{Channel, OPENING_LEN, Opening, PieceHead};
use vmdt_seal::group::{GROUP_DETAILS_MAX_LEN, GroupDetails, MAX_RECEIVERS};
use vmdt_seal::handover::{Contradiction, Handovers, MAX_HANDOVERS};
use vmdt_seal::identity::{
    CREDENTIAL_LEN, Credential, KEY_LEN, PublicIdentity, SIGNATURE_LEN, SecretIdentity,
};
use vmdt_seal::invite::{Invite, MAX_CHAIN};
use vmdt_seal::membership::Membership;
use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
use vmdt_seal::profile::{MAX_ADDRESSES, NAME_MAX_LEN, PROFILE_MAX_LEN, Profile};
use vmdt_seal::receipt::{MAX_STATEMENTS, Receipts};
use vmdt_seal::revocation::{MAX_ENTRIES, RevocationList};
use vmdt_seal::rotation::Rotation;
use vmdt_seal::ticket::{MAX_SERVERS, Ticket};
use vmdt_ssms::Threshold;
use vmdt_ssms::dispersal::Code as Dispersal;

/// Seeds of the invites that the seeds of the corpus are made with: whose they are is known.
pub(crate) const INVITES: [[u8; 16]; 2] = [[21; 16], [22; 16]];

/// The people of the corpus.
pub(crate) fn person(number: u8) -> SecretIdentity {
    SecretIdentity::from_seed(&[number; 32])
}

/// Everybody whose signatures can be mended.
static KNOWN: LazyLock<Vec<SecretIdentity>> = LazyLock::new(|| {
    let invites = INVITES
        .map(|seed| SecretIdentity::from_seed(&blake3::derive_key("vmdt 1.1 invite key", &seed)));
    (1..=4).map(person).chain(invites).collect()
});

/// An opening of the corpus, and a message's pieces under it.
pub(crate) struct Express {
    pub(crate) opening: Opening,
    channel: Channel,
    pub(crate) pieces: Vec<Bytes>,
}

pub(crate) static EXPRESS: LazyLock<Express> = LazyLock::new(|| {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let prekeys = PrekeyStore::new(PrekeyConfig::default(), 0, &mut rng);
    let (alice, bob) = (person(1), person(2).public());
    let prekey = prekeys.current().public();
    let (opening, channel) =
        Opening::sign(&alice, bob, &prekey, 1 << 40, &mut rng).expect("a good prekey");
    let code = Dispersal::new(Threshold::new(2, 3).expect("2 of 3"));
    let pieces = channel.seal(&code, 7, b"a small message", &mut rng);
    Express {
        opening,
        channel,
        pieces: pieces.expect("it is small"),
    }
});

/// One octet string as each of the signed structures: what is accepted keeps its bounds, holds
/// exactly these octets, is accepted again, and is what its signer signs when asked to sign the
/// same values: there is one encoding.
///
/// The input is taken as it is, and once more with signatures that are right, so that mutations
/// get past them.
pub fn sealed_structures(data: &[u8]) {
    let known = KNOWN.as_slice();
    structures(data, known);
    let mut mended = data.to_vec();
    mend(&mut mended, known);
    structures(&mended, known);
    if let Ok(store) = PrekeyStore::parse(data) {
        assert_eq!(*store.encode(), data);
    }
}

fn structures(data: &[u8], known: &[SecretIdentity]) {
    let signer = |key: PublicIdentity| known.iter().find(|known| known.public() == key);
    if let Ok(credential) = Credential::parse(data) {
        assert_eq!(credential.encode(), data);
        if let Some(signer) = signer(credential.identity())
            && signer.noise_public() == *credential.noise_public()
        {
            assert_eq!(signer.credential(credential.version_ms()).encode(), data);
        }
    }
    if let Ok(profile) = Profile::parse(data) {
        assert!(data.len() <= PROFILE_MAX_LEN);
        assert_eq!(profile.octets(), data);
        assert!(profile.name().len() <= NAME_MAX_LEN);
        assert!(profile.addresses().len() <= MAX_ADDRESSES);
        assert_eq!(profile.node_id(), profile.credential().node_id());
        assert!(Profile::parse_of(profile.node_id(), data).is_ok());
        let other = person(9).node_id();
        assert!(Profile::parse_of(other, data).is_err());
        assert!(!profile.replaces(&profile));
    }
    if let Ok(details) = SealedDetails::parse(data) {
        assert_eq!(details.octets(), data);
        assert_eq!(details.context().sender, details.sender());
        assert_eq!(details.context().receiver, details.receiver());
    }
    if let Ok(details) = GroupDetails::parse(data) {
        assert!(data.len() <= GROUP_DETAILS_MAX_LEN);
        assert_eq!(details.octets(), data);
        let group = details.group();
        assert!((1..=MAX_RECEIVERS).contains(&group.receivers().len()));
        assert!(!group.receivers().contains(&group.sender()));
        let wrapped: Vec<_> = group
            .receivers()
            .iter()
            .filter_map(|receiver| details.wrapped_for(*receiver).cloned())
            .collect();
        if let Some(signer) = signer(group.sender()) {
            let again = GroupDetails::sign(signer, group, &wrapped, details.manifest());
            assert_eq!(again.expect("what was read can be made").octets(), data);
        }
    }
    if let Ok(opening) = Opening::parse(data) {
        assert_eq!(&opening.octets()[..], data);
        assert_eq!(opening.octets().len(), OPENING_LEN);
    }
    // nobody makes a right tag up, so what is taken is what was made
    let express = &*EXPRESS;
    if let Ok(piece) = express.channel.check(&Bytes::copy_from_slice(data)) {
        assert_eq!(
            express
                .pieces
                .get(usize::from(piece.index().get()) - 1)
                .map(|p| &p[..]),
            Some(data)
        );
        let head = PieceHead::read(data).expect("a piece has a head");
        assert_eq!(
            (head.opening, head.counter),
            (express.channel.id(), piece.counter())
        );
    }
    if let Ok(placement) = Placement::parse(data) {
        assert_eq!(placement.octets(), data);
        for (index, holder) in placement.holders() {
            assert_eq!(placement.holder_of(*index), Some(*holder));
        }
        if let Some(signer) = signer(placement.sender()) {
            let (message, version) = (placement.message(), placement.version());
            let again = Placement::sign(signer, message, version, placement.holders());
            assert_eq!(again.expect("it was one").octets(), data);
        }
    }
    if let Ok(descriptor) = Descriptor::parse(data) {
        assert_eq!(descriptor.octets(), data);
        assert!(2 <= descriptor.k() && descriptor.k() <= descriptor.n());
        assert!(descriptor.name().len() <= NAME_MAX_LEN);
        assert!(Descriptor::parse_of(descriptor.cluster(), data).is_ok());
    }
    if let Ok(invite) = Invite::parse(data) {
        assert_eq!(invite.octets(), data);
        assert!((1..=MAX_CHAIN).contains(&invite.depth()));
        if let Some(chain) = invite.chain() {
            assert_eq!(chain.member(), invite.issuer());
            assert!(chain.rights().contains(invite.terms().rights));
            assert_eq!(chain.root(), invite.root());
        }
    }
    if let Ok(membership) = Membership::parse(data) {
        assert_eq!(membership.octets(), data);
        assert!(membership.depth() <= MAX_CHAIN);
        match membership.invite() {
            Some(invite) => {
                assert_eq!(invite.cluster(), membership.cluster());
                assert_eq!(invite.root(), membership.root());
            }
            None => assert_eq!(membership.root(), membership.member()),
        }
        assert_eq!(membership.node_id(), membership.member().node_id());
    }
    if let Ok(list) = RevocationList::parse(data) {
        assert_eq!(list.octets(), data);
        let details = list.details();
        for count in [
            details.removed.len(),
            details.invites.len(),
            details.kept.len(),
        ] {
            assert!(count <= MAX_ENTRIES);
        }
        if let Some(signer) = signer(list.signer()) {
            let again = RevocationList::sign(signer, details).expect("it was one");
            assert_eq!(again.octets(), data);
        }
        assert!(!list.replaces(&list));
    }
    if let Ok(remark) = Remark::parse(vmdt_wire::NodeId::EMPTY, data) {
        assert_eq!(remark.octets(), data);
    }
    if let Ok(receipts) = Receipts::parse(data) {
        assert_eq!(receipts.octets(), data);
        assert!((1..=MAX_STATEMENTS).contains(&receipts.statements().len()));
        if let Some(signer) = signer(receipts.signer()) {
            let again = Receipts::sign(
                signer,
                receipts.sender(),
                receipts.when_ms(),
                receipts.statements(),
            )
            .expect("they were");
            assert_eq!(again.octets(), data);
        }
    }
    if let Ok(handovers) = Handovers::parse(data) {
        assert!(Handovers::is_one(data));
        assert_eq!(handovers.octets(), data);
        assert!((1..=MAX_HANDOVERS).contains(&handovers.entries().len()));
        if let Some(signer) = signer(handovers.holder()) {
            let again = Handovers::sign(
                signer,
                handovers.receiver(),
                handovers.when_ms(),
                handovers.entries(),
            )
            .expect("they were");
            assert_eq!(again.octets(), data);
        }
        // they are about no message that there is
        assert!(Contradiction::find(data, data).is_err());
    }
    if let Ok(rotation) = Rotation::parse(data) {
        assert_eq!(rotation.octets(), data);
        if let (Some(old), Some(new)) = (signer(rotation.old_key()), signer(rotation.new_key())) {
            assert_eq!(Rotation::sign(old, new, rotation.when_ms()).octets(), data);
        }
    }
}

/// Makes the signatures in a structure right, those within it first; a signer that nobody knows
/// is replaced by one that is known.
fn mend(octets: &mut [u8], known: &[SecretIdentity]) {
    // where the signer's key stands; see the tables of the types
    let (context, key) = match octets.first() {
        Some(b'C') => ("vmdt 1.1 credential", 2),
        Some(b'P') => {
            if let Some(credential) = octets.get_mut(2..2 + CREDENTIAL_LEN) {
                mend(credential, known);
            }
            ("vmdt 1.1 profile", 4)
        }
        Some(b'A') => ("vmdt 1.1 sealed details", 2),
        Some(b'G') => ("vmdt 1.1 group details", 2),
        Some(b'E') => ("vmdt 1.1 express opening", 2),
        Some(b'L') => ("vmdt 1.1 placement", 2),
        Some(b'D') => ("vmdt 1.1 cluster descriptor", 32),
        Some(b'I') => {
            mend_within(octets, 95, known);
            ("vmdt 1.1 invite", 63)
        }
        Some(b'M') => {
            let invited = mend_within(octets, 58, known);
            ("vmdt 1.1 membership", if invited { 78 } else { 18 })
        }
        Some(b'X') => ("vmdt 1.1 revocation", 26),
        Some(b'R') => ("vmdt 1.1 receipts", 2),
        Some(b'H') => ("vmdt 1.1 hand-overs", 2),
        Some(b'O') => {
            let first = octets.len().saturating_sub(SIGNATURE_LEN);
            sign(&mut octets[..first], "vmdt 1.1 key rotation", 2, known);
            ("vmdt 1.1 key rotation", 34)
        }
        _ => return,
    };
    sign(octets, context, key, known);
}

/// Mends the structure behind a length of two octets; whether there is one.
fn mend_within(octets: &mut [u8], at: usize, known: &[SecretIdentity]) -> bool {
    let Some(len) = octets.get(at..at + 2) else {
        return false;
    };
    let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
    if let Some(inner) = octets.get_mut(at + 2..at + 2 + len) {
        mend(inner, known);
    }
    len > 0
}

fn sign(octets: &mut [u8], context: &str, key: usize, known: &[SecretIdentity]) {
    let Some(body) = octets.len().checked_sub(SIGNATURE_LEN) else {
        return;
    };
    let (body, signature) = octets.split_at_mut(body);
    let Some(field) = body.get_mut(key..key + KEY_LEN) else {
        return;
    };
    let signer = known
        .iter()
        .find(|known| known.public().as_octets()[..] == *field)
        .unwrap_or(&known[0]);
    field.copy_from_slice(signer.public().as_octets());
    signature.copy_from_slice(&signer.sign_octets(context, body));
}

/// A ticket: as text, and as octets whose check is right, so that mutations get past it. What is
/// accepted is written as it was read, case and blanks apart. The text is also read as a code.
pub fn tickets(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        ticket(text);
        if let Ok(code) = text.parse::<SpokenCode>() {
            let again: SpokenCode = code.to_string().parse().expect("a code as it is written");
            assert_eq!(again.number(), code.number());
            assert_eq!(again.to_string(), code.to_string());
        }
    }
    let mut octets = data.to_vec();
    let check = blake3::derive_key("vmdt 1.1 ticket check", data);
    octets.extend_from_slice(&check[..4]);
    ticket(&format!("vmdt1{}", BASE32_NOPAD.encode(&octets)));
}

fn ticket(text: &str) {
    let Ok(ticket) = text.parse::<Ticket>() else {
        return;
    };
    assert!((1..=MAX_SERVERS).contains(&ticket.servers().len()));
    let written = ticket.encode();
    let mut read: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    read.make_ascii_lowercase();
    assert_eq!(*written, read, "two texts of one ticket");
    assert_eq!(ticket.invite().cluster().id().ok(), Some(ticket.cluster()));
    let me = person(4).public();
    if let Ok(membership) = Membership::accept(ticket.invite(), ticket.secret(), me, 1) {
        let octets = membership.octets();
        assert!(Membership::parse(octets).is_ok());
        assert_eq!(membership.root(), ticket.invite().root());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mended_signature_is_the_one_that_was_made() {
        let signed = crate::seeds::sealed_structures()
            .into_iter()
            .filter(|seed| seed[0] != b'K' && !EXPRESS.pieces.contains(&seed[..].to_vec().into()));
        for seed in signed {
            let mut broken = seed.clone();
            let from = broken.len() - SIGNATURE_LEN;
            broken[from..].fill(0);
            mend(&mut broken, &KNOWN);
            assert_eq!(broken, seed, "{}", char::from(seed[0]));
        }
    }
}

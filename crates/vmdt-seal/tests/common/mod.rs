//! What the tests share: a few people with fixed keys, and the file of golden octets.

#![allow(dead_code, unreachable_pub, clippy::print_stdout)]

use std::time::Instant;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use vmdt_seal::descriptor::{Descriptor, DescriptorDetails};
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::invite::{Invite, InviteSecret, InviteTerms, Rights};
use vmdt_seal::membership::Membership;
use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
use vmdt_seal::profile::{Profile, ProfileDetails};

pub const EXPIRES: u64 = 1_000_000;

/// Alice has created a cluster and invited Bob, who may invite others.
pub struct World {
    pub rng: ChaCha20Rng,
    pub alice: SecretIdentity,
    pub bob: SecretIdentity,
    pub carol: SecretIdentity,
    pub prekeys: PrekeyStore,
    pub descriptor: Descriptor,
    pub invite: Invite,
    pub secret: InviteSecret,
    pub membership: Membership,
}

pub fn terms(rights: Rights) -> InviteTerms {
    InviteTerms {
        rights,
        expires_ms: EXPIRES,
        max_uses: 0,
    }
}

impl World {
    pub fn new() -> Self {
        let mut rng = ChaCha20Rng::from_seed([42; 32]);
        let alice = SecretIdentity::from_seed(&[1; 32]);
        let bob = SecretIdentity::from_seed(&[2; 32]);
        let carol = SecretIdentity::from_seed(&[3; 32]);
        let details = DescriptorDetails {
            k: 2,
            n: 3,
            options: 0,
            name: "friends".into(),
            created_ms: 1,
        };
        let descriptor = Descriptor::sign(&alice, &details, &mut rng).unwrap();
        let rights = Rights::MEMBER.with(Rights::INVITE);
        let (invite, secret) =
            Invite::issue(&alice, None, &descriptor, &terms(rights), &mut rng).unwrap();
        let membership = Membership::accept(&invite, &secret, bob.public(), 2_000).unwrap();
        Self {
            prekeys: PrekeyStore::new(PrekeyConfig::default(), 0, &mut rng),
            rng,
            alice,
            bob,
            carol,
            descriptor,
            invite,
            secret,
            membership,
        }
    }

    pub fn profile(&self) -> Profile {
        let details = ProfileDetails {
            name: "Alice".into(),
            addresses: vec![
                "192.0.2.1:7000".parse().unwrap(),
                "[2001:db8::1]:7001".parse().unwrap(),
            ],
            capabilities: vec!["mailbox".into()],
        };
        Profile::sign(
            &self.alice,
            &details,
            self.prekeys.current().public(),
            1_000,
        )
        .unwrap()
    }

    /// Somebody whom `issuer`, a member, has invited.
    pub fn invited_by(
        &mut self,
        issuer: &SecretIdentity,
        chain: &Membership,
        joiner: &SecretIdentity,
    ) -> Membership {
        let terms = terms(Rights::MEMBER.with(Rights::INVITE));
        let (invite, secret) =
            Invite::issue(issuer, Some(chain), &self.descriptor, &terms, &mut self.rng).unwrap();
        Membership::accept(&invite, &secret, joiner.public(), 2_000).unwrap()
    }

    /// A membership at the end of the longest chain.
    pub fn deepest(&mut self) -> Membership {
        let mut issuer = self.bob.clone();
        let mut membership = self.membership.clone();
        for seed in 4..7 {
            let joiner = SecretIdentity::from_seed(&[seed; 32]);
            membership = self.invited_by(&issuer, &membership, &joiner);
            issuer = joiner;
        }
        membership
    }
}

/// One moment, to which tests add durations.
#[allow(clippy::disallowed_methods)]
pub fn base() -> Instant {
    Instant::now()
}

/// Compares octets with those of a name in `golden.txt`. With `GOLDEN=print` in the environment
/// it prints the line instead.
pub fn golden(name: &str, octets: &[u8]) {
    let found = data_encoding::HEXLOWER.encode(octets);
    if std::env::var("GOLDEN").is_ok_and(|value| value == "print") {
        println!("GOLDEN {name} {found}");
        return;
    }
    let expected = include_str!("../golden.txt")
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    assert_eq!(Some(found.as_str()), expected, "golden {name}");
}

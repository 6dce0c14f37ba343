//! Who gets through a handshake, and what the others are told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Connection, DigitallySignedStruct,
    ServerConnection, SignatureScheme,
};
use vmdt_tls::{
    Failure, Identity, PeerKeyError, client_config, peer_key, rustls, server_config, server_name,
};

fn identity(octet: u8) -> Identity {
    Identity::from_seed(&[octet; 32]).unwrap()
}

fn client(config: Arc<ClientConfig>) -> Connection {
    ClientConnection::new(config, server_name()).unwrap().into()
}

fn server(identity: &Identity) -> Connection {
    let config = server_config(identity).unwrap();
    ServerConnection::new(config).unwrap().into()
}

/// Moves what `from` wants to send to `to`; returns how many octets that were.
fn carry(from: &mut Connection, to: &mut Connection) -> Result<usize, rustls::Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(wire.len())
}

/// Runs the handshake to its end or the first error of each side.
fn shake(near: &mut Connection, far: &mut Connection) -> [Option<Failure>; 2] {
    let mut failed = [None, None];
    for _ in 0..10 {
        if let Err(error) = carry(near, far) {
            failed[1].get_or_insert(Failure::from(&error));
        }
        if let Err(error) = carry(far, near) {
            failed[0].get_or_insert(Failure::from(&error));
        }
    }
    failed
}

/// Believes anything: plays clients that are not ours.
#[derive(Debug)]
struct Credulous {
    raw: bool,
}

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ED25519,
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
        ]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

fn stranger(raw: bool, version: &'static rustls::SupportedProtocolVersion) -> Connection {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous { raw }))
        .with_no_client_auth();
    config.alpn_protocols = vec![vmdt_tls::ALPN.to_vec()];
    client(Arc::new(config))
}

#[test]
fn both_sides_learn_the_others_key() {
    let (us, them) = (identity(1), identity(2));
    let mut near = client(client_config(&us, them.public_key()).unwrap());
    let mut far = server(&them);
    assert_eq!(peer_key(&far), Err(PeerKeyError::None));
    assert_eq!(shake(&mut near, &mut far), [None, None]);
    assert_eq!(peer_key(&far), Ok(*us.public_key()));
    assert_eq!(peer_key(&near), Ok(*them.public_key()));
    assert_eq!(far.alpn_protocol(), Some(&b"vmdt/1.1"[..]));
    assert_eq!(
        far.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );

    near.writer().write_all(b"LIST_CLUSTERS|a\n").unwrap();
    carry(&mut near, &mut far).unwrap();
    let mut line = [0; 64];
    let len = far.reader().read(&mut line).unwrap();
    assert_eq!(&line[..len], b"LIST_CLUSTERS|a\n");
}

#[test]
fn a_server_with_another_key_is_refused_and_both_keys_are_named() {
    let (us, expected, other) = (identity(1), identity(2), identity(3));
    let mut near = client(client_config(&us, expected.public_key()).unwrap());
    let mut far = server(&other);
    let [ours, theirs] = shake(&mut near, &mut far);
    let ours = ours.unwrap();
    assert_eq!(
        ours,
        Failure::WrongServerKey {
            expected: *expected.public_key(),
            found: *other.public_key()
        }
    );
    let text = ours.to_string();
    for key in [&expected, &other] {
        let hex: String = key
            .public_key()
            .iter()
            .map(|o| format!("{o:02x}"))
            .collect();
        assert!(text.contains(&hex), "{text}");
    }
    assert!(matches!(theirs, Some(Failure::Refused(_))), "{theirs:?}");
    assert!(
        far.is_handshaking(),
        "the server learns nothing of the client"
    );
}

/// Promises a raw public key and shows none.
#[derive(Debug)]
struct Coy;

impl ResolvesClientCert for Coy {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn a_client_without_a_key_is_refused() {
    let us = identity(1);
    let them = identity(2);
    let mut config = (*client_config(&us, them.public_key()).unwrap()).clone();
    config.client_auth_cert_resolver = Arc::new(Coy);
    let mut near = client(Arc::new(config));
    let mut far = server(&them);
    let [ours, theirs] = shake(&mut near, &mut far);
    assert_eq!(theirs, Some(Failure::NoClientKey));
    assert_eq!(ours, Some(Failure::NoClientKey));
    assert!(peer_key(&far).is_err());
}

#[test]
fn a_client_that_has_no_raw_key_to_offer_is_refused() {
    let mut near = stranger(true, &TLS13);
    let mut far = server(&identity(2));
    let [ours, theirs] = shake(&mut near, &mut far);
    assert_eq!(theirs, Some(Failure::Incompatible));
    assert!(ours.is_some());
    assert!(peer_key(&far).is_err());
}

#[test]
fn a_client_that_wants_a_certificate_is_refused() {
    let mut near = stranger(false, &TLS13);
    let mut far = server(&identity(2));
    let [ours, theirs] = shake(&mut near, &mut far);
    assert_eq!(theirs, Some(Failure::Incompatible));
    assert!(ours.is_some());
}

#[test]
fn tls_1_2_is_refused() {
    let mut near = stranger(false, &TLS12);
    let mut far = server(&identity(2));
    let [ours, theirs] = shake(&mut near, &mut far);
    assert_eq!(theirs, Some(Failure::Incompatible));
    assert_eq!(ours, Some(Failure::Incompatible));
}

#[test]
fn another_protocol_inside_is_refused() {
    for protocols in [vec![], vec![b"h2".to_vec()]] {
        let (us, them) = (identity(1), identity(2));
        let mut config = (*client_config(&us, them.public_key()).unwrap()).clone();
        config.alpn_protocols = protocols.clone();
        let mut near = client(Arc::new(config));
        let mut far = server(&them);
        let failed = shake(&mut near, &mut far);
        if protocols.is_empty() {
            // rustls leaves that to us.
            assert_eq!(failed, [None, None]);
            assert_eq!(peer_key(&far), Err(PeerKeyError::Protocol));
        } else {
            assert_eq!(failed[1], Some(Failure::Incompatible));
        }
    }
}

#[test]
fn a_plain_client_gets_an_alert_and_nothing_else() {
    let mut far = server(&identity(2));
    let mut line = &b"REGISTER_P2P_PORT|alice|9001\n"[..];
    far.read_tls(&mut line).unwrap();
    let error = far.process_new_packets().unwrap_err();
    assert_eq!(Failure::from(&error), Failure::NotTls);
    let mut answer = Vec::new();
    while far.wants_write() {
        far.write_tls(&mut answer).unwrap();
    }
    // An alert record: content type 21, two octets.
    assert_eq!((answer[0], answer.len()), (21, 7));
}

#[test]
fn a_plain_server_is_told_from_a_tls_one() {
    let us = identity(1);
    let mut near = client(client_config(&us, identity(2).public_key()).unwrap());
    let mut answer = &b"ERROR|unknown-type: no known message\n"[..];
    near.read_tls(&mut answer).unwrap();
    let error = near.process_new_packets().unwrap_err();
    assert_eq!(Failure::from(&error), Failure::NotTls);
}

#[test]
fn a_replayed_handshake_gets_nowhere() {
    let (us, them) = (identity(1), identity(2));
    let mut near = client(client_config(&us, them.public_key()).unwrap());
    let mut far = server(&them);
    let mut recorded = Vec::new();
    for _ in 0..4 {
        let mut wire = Vec::new();
        while near.wants_write() {
            near.write_tls(&mut wire).unwrap();
        }
        recorded.extend_from_slice(&wire);
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            far.read_tls(&mut wire).unwrap();
            far.process_new_packets().unwrap();
        }
        carry(&mut far, &mut near).unwrap();
    }
    assert!(peer_key(&far).is_ok());

    let mut again = server(&them);
    let mut wire = recorded.as_slice();
    let mut failed = false;
    while !wire.is_empty() && !failed {
        again.read_tls(&mut wire).unwrap();
        failed = again.process_new_packets().is_err();
    }
    assert!(failed);
    assert!(peer_key(&again).is_err());
}

#[test]
fn failures_are_found_inside_io_errors() {
    use std::io::{Error, ErrorKind};
    let wrapped = |cause: rustls::Error| Failure::of(&Error::new(ErrorKind::InvalidData, cause));
    assert_eq!(
        wrapped(rustls::Error::NoCertificatesPresented),
        Failure::NoClientKey
    );
    assert_eq!(
        wrapped(rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
        )),
        Failure::NoClientKey
    );
    assert_eq!(
        Failure::of(&ErrorKind::UnexpectedEof.into()),
        Failure::Ended
    );
    assert_eq!(
        Failure::of(&ErrorKind::ConnectionReset.into()),
        Failure::Io(ErrorKind::ConnectionReset)
    );
}

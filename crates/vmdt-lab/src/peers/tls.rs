//! TLS 1.3 over kernel TCP, by rustls.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Inbox, Outbox, setting, tcp};
use crate::process::Args;

/// The name in the certificate.
pub(super) const NAME: &str = "lab";

/// A fresh certificate and its key for both ends, as settings.
///
/// # Errors
/// When none can be made.
pub fn credentials() -> Result<Args> {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
    Ok(Args::from([
        ("cert".to_owned(), hex(made.cert.der())),
        ("key".to_owned(), hex(&made.signing_key.serialize_der())),
    ]))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|o| format!("{o:02x}")).collect()
}

fn octets(args: &Args, key: &str) -> Result<Vec<u8>> {
    let text: String = setting(args, key)?;
    (0..text.len() / 2)
        .map(|i| {
            let pair = text.get(2 * i..2 * i + 2).unwrap_or_default();
            u8::from_str_radix(pair, 16).with_context(|| format!("{key}= is not hex"))
        })
        .collect()
}

/// The server's side, TLS 1.3 alone.
pub(super) fn server_config(args: &Args) -> Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from(octets(args, "cert")?)];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(octets(args, "key")?));
    Ok(ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?)
}

/// The client's side: trusts the lab's certificate alone.
pub(super) fn client_config(args: &Args) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(octets(args, "cert")?))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // every connection is a first one
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

pub(crate) async fn serve(name: &str, args: &Args, outbox: Outbox, inbox: Inbox) -> Result<()> {
    let port = setting(args, "port")?;
    let listener = tcp::listen(name, SocketAddr::from(([0, 0, 0, 0], port)))?;
    let acceptor = TlsAcceptor::from(Arc::new(server_config(args)?));
    tokio::spawn(async move {
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            if let Ok(stream) = acceptor.accept(stream).await {
                let (reader, writer) = tokio::io::split(stream);
                tcp::carry(reader, writer, outbox, inbox);
            }
        }
    });
    Ok(())
}

pub(crate) async fn connect(name: &str, args: &Args, outbox: Outbox, inbox: Inbox) -> Result<()> {
    let stream = tcp::dial(name, args).await?;
    let connector = TlsConnector::from(Arc::new(client_config(args)?));
    let stream = connector.connect(NAME.try_into()?, stream).await?;
    let (reader, writer) = tokio::io::split(stream);
    tcp::carry(reader, writer, outbox, inbox);
    Ok(())
}

//! Clients of a real server.

#![allow(dead_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use vmdt_seal::identity::SecretIdentity;
use vmdt_tls::Identity;

pub(crate) const SERVER_SEED: [u8; 32] = [7; 32];

/// Long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One connection, line by line.
pub(crate) struct Client {
    pub(crate) stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn plain(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) async fn tls(address: SocketAddr, identity: &SecretIdentity) -> Client {
        let server = *Identity::from_seed(&SERVER_SEED).unwrap().public_key();
        Client::try_tls(address, identity, &server).await.unwrap()
    }

    pub(crate) async fn try_tls(
        address: SocketAddr,
        identity: &SecretIdentity,
        server: &[u8; 32],
    ) -> std::io::Result<Client> {
        let identity = Identity::from_seed(&identity.seed()).unwrap();
        let config = vmdt_tls::client_config(&identity, server).unwrap();
        let stream = TcpStream::connect(address).await?;
        let connector = TlsConnector::from(Arc::clone(&config));
        let stream = connector.connect(vmdt_tls::server_name(), stream).await?;
        Ok(Client::over(stream))
    }

    fn over(stream: impl Stream + 'static) -> Client {
        Client {
            stream: Box::new(stream),
            buffer: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.stream.write_all(line.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next line, or `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let read = async {
            loop {
                if let Some(end) = self.buffer.iter().position(|&o| o == b'\n') {
                    let rest = self.buffer.split_off(end + 1);
                    let line = std::mem::replace(&mut self.buffer, rest);
                    return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
                }
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        };
        timeout(PATIENCE, read).await.expect("a line in time")
    }

    pub(crate) async fn ask(&mut self, line: &str) -> String {
        self.send(line).await;
        self.line().await.expect("a reply")
    }

    /// The next line that starts so; others are skipped.
    pub(crate) async fn find(&mut self, start: &str) -> String {
        loop {
            let line = self.line().await;
            let line = line.unwrap_or_else(|| panic!("the end instead of {start}"));
            if line.starts_with(start) {
                return line;
            }
        }
    }

    /// Asks with a tag and waits for the reply with it; pushes are skipped.
    pub(crate) async fn tagged(&mut self, request: &str) -> String {
        self.send(&format!("VMDT/TCP/1.0/{request}/~77")).await;
        loop {
            let line = self.line().await.expect("a reply");
            if let Some(line) = line.strip_suffix("/~77") {
                return line.strip_prefix("VMDT/TCP/1.0/").unwrap().to_owned();
            }
        }
    }
}

pub(crate) fn who(octet: u8) -> SecretIdentity {
    SecretIdentity::from_seed(&[octet; 32])
}

pub(crate) fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

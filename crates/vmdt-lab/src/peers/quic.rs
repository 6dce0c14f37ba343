//! QUIC by `quinn`, and multipath QUIC by `noq`: a unidirectional stream for each message, so that
//! no message waits for another one's losses; bulk content on one stream.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};

use super::{Arrived, HEAD, Inbox, Outbox, Tag, locals, setting, targets, tls};
use crate::process::Args;

/// Octets of the largest datagrams where they are to be as large as those of sealed sessions.
const LARGE: u16 = 16_376;

/// What both libraries have in common.
macro_rules! common {
    ($quic:ident) => {
        async fn write(connection: $quic::Connection, mut outbox: Outbox) -> Result<()> {
            let mut bulk = None;
            while let Some(message) = outbox.recv().await {
                match message.tag {
                    Tag::Piece | Tag::Last => {
                        let mut stream = match bulk.take() {
                            Some(stream) => stream,
                            None => connection.open_uni().await?,
                        };
                        stream.write_all(&message.octets).await?;
                        if message.tag == Tag::Last {
                            stream.finish()?;
                        } else {
                            bulk = Some(stream);
                        }
                    }
                    _ => {
                        let mut stream = connection.open_uni().await?;
                        stream.write_all(&message.octets).await?;
                        stream.finish()?;
                    }
                }
            }
            std::future::pending().await
        }

        async fn read(connection: $quic::Connection, inbox: Inbox) -> Result<()> {
            loop {
                let stream = connection.accept_uni().await?;
                tokio::spawn(read_one(stream, inbox.clone()));
            }
        }

        async fn read_one(mut stream: $quic::RecvStream, inbox: Inbox) -> Result<()> {
            let mut head = [0; HEAD];
            stream.read_exact(&mut head).await?;
            let first = Arrived::now(&head, HEAD).context("not a message")?;
            let mut buffer = vec![0; 256 * 1024];
            let mut octets = HEAD;
            if matches!(first.tag, Tag::Piece | Tag::Last) {
                let mut part = HEAD;
                while let Some(len) = stream.read(&mut buffer).await? {
                    let _ = inbox.send(Arrived::part(part + len, false));
                    part = 0;
                }
                let _ = inbox.send(Arrived::part(part, true));
                return Ok(());
            }
            while let Some(len) = stream.read(&mut buffer).await? {
                octets += len;
            }
            inbox
                .send(Arrived::now(&head, octets).context("not a message")?)
                .map_err(|_| anyhow!("nobody listens"))
        }

        pub(crate) async fn serve(
            name: &str,
            args: &Args,
            outbox: Outbox,
            inbox: Inbox,
        ) -> Result<()> {
            let crypto =
                $quic::crypto::rustls::QuicServerConfig::try_from(tls::server_config(args)?)?;
            let mut config = $quic::ServerConfig::with_crypto(Arc::new(crypto));
            config.transport_config(Arc::new(transport(name, args)?));
            let port: u16 = setting(args, "port")?;
            let at = SocketAddr::from(([0, 0, 0, 0], port));
            let endpoint = endpoint(name, Some(config), at)?;
            tokio::spawn(async move {
                if let Some(incoming) = endpoint.accept().await
                    && let Ok(connection) = incoming.await
                {
                    tokio::spawn(write(connection.clone(), outbox));
                    let _ = read(connection, inbox).await;
                }
            });
            Ok(())
        }

        fn endpoint(
            name: &str,
            server: Option<$quic::ServerConfig>,
            at: SocketAddr,
        ) -> Result<$quic::Endpoint> {
            let mut config = $quic::EndpointConfig::default();
            if name.ends_with("large") {
                config.max_udp_payload_size(LARGE)?;
            }
            let runtime = $quic::default_runtime().context("no runtime")?;
            let socket = UdpSocket::bind(at)?;
            Ok($quic::Endpoint::new(config, server, socket, runtime)?)
        }

        async fn dial(name: &str, args: &Args) -> Result<$quic::Connection> {
            let crypto =
                $quic::crypto::rustls::QuicClientConfig::try_from(tls::client_config(args)?)?;
            let mut config = $quic::ClientConfig::new(Arc::new(crypto));
            config.transport_config(Arc::new(transport(name, args)?));
            #[allow(unused_mut)]
            let mut endpoint = endpoint(name, None, SocketAddr::from(([0, 0, 0, 0], 0)))?;
            endpoint.set_default_client_config(config);
            let to = *targets(args)?.first().context("to= names no address")?;
            let connection = endpoint.connect(to, tls::NAME)?.await?;
            // the endpoint's tasks live as long as the connection
            Ok(connection)
        }
    };
}

pub(super) mod quinn_peer {
    use super::*;

    common!(quinn);

    fn transport(name: &str, _args: &Args) -> Result<quinn::TransportConfig> {
        let mut config = quinn::TransportConfig::default();
        if name.ends_with("bbr") {
            let bbr = quinn::congestion::BbrConfig::default();
            config.congestion_controller_factory(Arc::new(bbr));
        }
        if name.ends_with("large") {
            let mut discovery = quinn::MtuDiscoveryConfig::default();
            discovery.upper_bound(LARGE);
            config.mtu_discovery_config(Some(discovery));
        }
        Ok(config)
    }

    pub(crate) async fn connect(
        name: &str,
        args: &Args,
        outbox: Outbox,
        inbox: Inbox,
    ) -> Result<()> {
        let connection = dial(name, args).await?;
        tokio::spawn(write(connection.clone(), outbox));
        tokio::spawn(read(connection, inbox));
        Ok(())
    }
}

pub(super) mod noq_peer {
    use super::*;
    use noq::{FourTuple, PathStatus};
    use std::time::Duration;

    common!(noq);

    fn transport(name: &str, args: &Args) -> Result<noq::TransportConfig> {
        let mut config = noq::TransportConfig::default();
        if name.ends_with("bbr") {
            let bbr = noq::congestion::Bbr3Config::default();
            config.congestion_controller_factory(Arc::new(bbr));
        }
        let paths: u32 = setting(args, "paths")?;
        config.max_concurrent_multipath_paths(paths + 1);
        Ok(config)
    }

    /// Opens a path; tries again while the other side has not given enough connection ids.
    async fn open(connection: noq::Connection, path: FourTuple) {
        for _ in 0..200 {
            if connection
                .open_path(path, PathStatus::Available)
                .await
                .is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn connect(
        name: &str,
        args: &Args,
        outbox: Outbox,
        inbox: Inbox,
    ) -> Result<()> {
        let connection = dial(name, args).await?;
        // the first path carries messages meanwhile
        for (to, at) in targets(args)?.into_iter().zip(locals(args)?).skip(1) {
            tokio::spawn(open(connection.clone(), FourTuple::new(to, Some(at))));
        }
        tokio::spawn(write(connection.clone(), outbox));
        tokio::spawn(read(connection, inbox));
        Ok(())
    }
}

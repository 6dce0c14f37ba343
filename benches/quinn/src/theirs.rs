//! quinn, as its own benchmarks set it up: one runtime for each end, large windows, segmentation
//! offload, AES-128-GCM by ring.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Figures, Options, Span, chunk, local_runtime};

fn transport(options: &Options) -> Arc<TransportConfig> {
    let window = VarInt::from_u32(64 << 20);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(options.datagram);
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(window)
        .receive_window(window)
        .send_window(64 << 20)
        .initial_mtu(options.datagram)
        .mtu_discovery_config(Some(discovery));
    if options.ack_frequency {
        config.ack_frequency_config(Some(AckFrequencyConfig::default()));
    }
    if options.bbr {
        config.congestion_controller_factory(Arc::new(quinn::congestion::BbrConfig::default()));
    }
    Arc::new(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(provider)
}

fn endpoint(server: Option<ServerConfig>, options: &Options) -> Endpoint {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let buffers = socket2::SockRef::from(&socket);
    buffers.set_recv_buffer_size(crate::SOCKET_BUFFER).unwrap();
    buffers.set_send_buffer_size(crate::SOCKET_BUFFER).unwrap();
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(options.datagram).unwrap();
    Endpoint::new(config, server, socket, Arc::new(TokioRuntime)).unwrap()
}

pub fn run(options: &Options) -> Figures {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from(certified.cert);
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let (tell, address) = mpsc::channel::<SocketAddr>();
    let server = {
        let (options, certificate) = (options.clone(), certificate.clone());
        std::thread::spawn(move || {
            local_runtime().block_on(async move {
                let tls = rustls::ServerConfig::builder_with_provider(provider())
                    .with_protocol_versions(&[&rustls::version::TLS13])
                    .unwrap()
                    .with_no_client_auth()
                    .with_single_cert(vec![certificate], key)
                    .unwrap();
                let tls = QuicServerConfig::try_from(tls).unwrap();
                let mut config = ServerConfig::with_crypto(Arc::new(tls));
                config.transport = transport(&options);
                let endpoint = endpoint(Some(config), &options);
                tell.send(endpoint.local_addr().unwrap()).unwrap();
                let connection = endpoint.accept().await.unwrap().await.unwrap();
                let mut stream = connection.accept_uni().await.unwrap();
                let mut octets = 0u64;
                while let Some(chunk) = stream.read_chunk(usize::MAX, true).await.unwrap() {
                    octets += chunk.bytes.len() as u64;
                }
                connection.closed().await;
                octets
            })
        })
    };
    let address = address.recv().unwrap();
    let total = options.octets;
    let options = options.clone();
    let figures = local_runtime().block_on(async move {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(transport(&options));
        let endpoint = endpoint(None, &options);
        let connection = endpoint
            .connect_with(config, address, "localhost")
            .unwrap()
            .await
            .unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        let piece = chunk();
        let span = Span::begin(Instant::now());
        let mut left = total;
        while left > 0 {
            let len = left.min(piece.len() as u64);
            left -= len;
            let part: Bytes = piece.slice(..usize::try_from(len).unwrap());
            stream.write_chunk(part).await.unwrap();
        }
        stream.finish().unwrap();
        stream.stopped().await.unwrap();
        let stats = connection.stats();
        let figures = span.end(
            Instant::now(),
            stats.path.sent_packets,
            stats.path.lost_packets,
        );
        connection.close(VarInt::from_u32(0), b"");
        endpoint.wait_idle().await;
        figures
    });
    assert_eq!(server.join().unwrap(), total);
    figures
}

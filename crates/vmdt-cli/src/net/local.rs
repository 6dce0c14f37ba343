//! A server in this process, and the addresses it is reached at.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use vmdt_node::Server;

use super::{server_key, server_url};
use crate::failure::{Exit, Failure, Outcome};

/// The most addresses that a ticket names.
const MAX_ADDRESSES: usize = 4;

/// A server that lives as long as this.
#[derive(Debug)]
pub(crate) struct LocalServer {
    server: Server,
    /// How nodes reach it, the likeliest way first.
    pub(crate) names: Vec<String>,
}

impl LocalServer {
    /// Runs a server on a free port: of profile 1.1 with a key for this run, or of 1.0.
    ///
    /// # Errors
    /// When the address can't be used.
    pub(crate) async fn start(bind: IpAddr, open: bool) -> Outcome<LocalServer> {
        let at = SocketAddr::new(bind, 0);
        let started = if open {
            Server::open(at).await
        } else {
            Server::bind(at).await
        };
        let server = started.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        let names = names(&server);
        Ok(LocalServer { server, names })
    }

    pub(crate) async fn close(&self) {
        self.server.close().await;
    }
}

/// How nodes elsewhere reach a server, the likeliest way first.
pub(crate) fn names(server: &Server) -> Vec<String> {
    let at = server.local_addr();
    let key = server.url();
    addresses(at.ip())
        .into_iter()
        .map(|ip| {
            let at = SocketAddr::new(ip, at.port()).to_string();
            match key.as_deref().and_then(server_key) {
                Some(key) => server_url(key, &at),
                None => at,
            }
        })
        .collect()
}

/// The addresses of this machine that a socket bound to `bind` is reached at: the one that leads
/// to the rest of the world first. The loopback address only where there is no other.
pub(crate) fn addresses(bind: IpAddr) -> Vec<IpAddr> {
    if !bind.is_unspecified() {
        return vec![bind];
    }
    let mut found: Vec<IpAddr> = outward().into_iter().collect();
    if let Ok(interfaces) = if_addrs::get_if_addrs() {
        let usable = interfaces
            .into_iter()
            .filter(|i| !i.is_loopback())
            .map(|i| i.ip());
        for ip in usable.filter(|ip| ip.is_ipv4() || bind.is_ipv6()) {
            let link_local = match ip {
                IpAddr::V4(ip) => ip.is_link_local(),
                IpAddr::V6(ip) => ip.is_unicast_link_local(),
            };
            if !link_local && !found.contains(&ip) {
                found.push(ip);
            }
        }
    }
    found.truncate(MAX_ADDRESSES);
    if found.is_empty() {
        found.push(Ipv4Addr::LOCALHOST.into());
    }
    found
}

/// The address that packets to elsewhere leave from. Nothing is sent: connecting a datagram socket
/// only chooses a route.
fn outward() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_was_chosen_is_the_only_one() {
        let local = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(addresses(local), [local]);
        let found = addresses(IpAddr::from([0, 0, 0, 0]));
        assert!(!found.is_empty() && found.len() <= MAX_ADDRESSES);
        assert!(found.iter().all(|ip| !ip.is_unspecified()));
    }
}

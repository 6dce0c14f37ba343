//! Everything that touches the node: the rest of the program knows members, messages and paths.

pub(crate) mod link;
pub(crate) mod local;
pub(crate) mod mode;
pub(crate) mod names;
pub(crate) mod who;

pub(crate) use vmdt_node::{ClusterId, NodeId as Peer, Ticket};

/// What a server's address begins with where it names the server's key.
const SCHEME: &str = "vmdt://";

/// `host:port` of a server as it is configured: `vmdt://KEY@host:port`, or that without a key.
pub(crate) fn host_port(server: &str) -> &str {
    let rest = server.strip_prefix(SCHEME).unwrap_or(server);
    let rest = rest.trim_end_matches('/');
    rest.rsplit_once('@').map_or(rest, |(_, at)| at)
}

/// The key in a server's address, where it names one.
pub(crate) fn server_key(server: &str) -> Option<&str> {
    let rest = server.strip_prefix(SCHEME).unwrap_or(server);
    rest.rsplit_once('@').map(|(key, _)| key)
}

/// The address of a server with this key.
pub(crate) fn server_url(key: &str, at: &str) -> String {
    format!("{SCHEME}{key}@{at}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_server_is_taken_apart() {
        let url = server_url("abc", "h:1");
        assert_eq!(url, "vmdt://abc@h:1");
        for text in [url.as_str(), "vmdt://abc@h:1/", "abc@h:1"] {
            assert_eq!((host_port(text), server_key(text)), ("h:1", Some("abc")));
        }
        assert_eq!((host_port("h:1"), server_key("h:1")), ("h:1", None));
        assert_eq!(host_port("[::1]:5"), "[::1]:5");
    }
}

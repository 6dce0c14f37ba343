//! Clusters as an earlier run knew them.

use vmdt_control::ClusterMemory;

use crate::core::Core;
use crate::handle::{Cluster, Node, NodeError};

impl Cluster {
    /// What this node knows of the cluster, to be kept for its next run: who is in it, by what was
    /// signed, and where they are. [`Node::recall`] goes on from it without waiting for a server.
    /// `None` in profile 1.0, and when this node is not a member any more.
    ///
    /// It changes when members come, go and move; what is older is of use still. It holds no
    /// secret, but says who is in the cluster, and where.
    ///
    /// # Errors
    /// [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn memory(&self) -> Result<Option<ClusterMemory>, NodeError> {
        let id = *self.id();
        self.node
            .with(move |core: &mut Core, _| core.member().memory(id))
            .await
    }
}

impl Node {
    /// Goes on in a cluster as an earlier run with the same identity knew it. What is sent from
    /// now on leaves for where the members were last, while the server is still being reached, and
    /// also when no server can be. What the server says later replaces what was remembered; if
    /// this node's place is gone, [`Event::ClusterLost`](crate::Event::ClusterLost) says so.
    ///
    /// In a cluster that this node is in already nothing changes. A member that was removed while
    /// no server can be reached does not know it; the others refuse it.
    ///
    /// ```
    /// # use vmdt_node::{ClusterMemory, Node, Policy, SecretIdentity, Server};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = Server::bind("127.0.0.1:0".parse()?).await?;
    /// # let at = server.url().ok_or("no TLS port")?;
    /// # let identity = SecretIdentity::from_seed(&[7; 32]);
    /// let node = Node::builder().server(&at).identity(identity.clone()).bind().await?;
    /// let cluster = node.create_cluster(Policy::k_of_n(2, 3)).await?;
    /// let file = cluster.memory().await?.ok_or("not a member")?.encode();
    /// node.close().await;
    ///
    /// // the next run, whether the server is there or not
    /// let node = Node::builder().server(&at).identity(identity).bind().await?;
    /// let cluster = node.recall(&ClusterMemory::parse(&file)?).await?;
    /// # assert!(cluster.status().await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NodeError::Memory`] when it is another identity's, the membership in it does not count, or
    /// this node speaks profile 1.0.
    ///
    /// # Cancel safety
    /// When the future is dropped the node may be in the cluster all the same.
    pub async fn recall(&self, memory: &ClusterMemory) -> Result<Cluster, NodeError> {
        let (id, memory) = (memory.cluster(), memory.clone());
        self.with(move |core, now| core.recall(now, &memory))
            .await?
            .map_err(NodeError::Memory)?;
        Ok(Cluster {
            node: self.clone(),
            id,
        })
    }
}

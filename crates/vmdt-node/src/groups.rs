//! Sending to several members at once.

use std::path::Path;

use bytes::Bytes;
use vmdt_wire::NodeId;

use crate::core::SendOptions;
use crate::driver::{Content, To};
use crate::handle::{Cluster, Node, NodeError, open_source};
use crate::sending::Sending;

impl Node {
    /// Sends octets to several members of one cluster, each of whom gets them as one
    /// [`Event::Message`](crate::Event::Message). The message is sealed and spread once, whatever
    /// the number of its receivers: at most [`MAX_RECEIVERS`](crate::MAX_RECEIVERS), each of whom
    /// learns who the others are.
    ///
    /// [`Event::DeliveredTo`](crate::Event::DeliveredTo) and
    /// [`Event::NotDeliveredTo`](crate::Event::NotDeliveredTo) tell of each receiver.
    /// [`Sending::delivered`] waits for all; if some fail, its error is
    /// [`TransferError::Group`](crate::TransferError::Group), which names them.
    ///
    /// With [`storage`](crate::NodeBuilder::storage) it outlives the process, and goes on for the
    /// receivers that have not confirmed it; one that is away gets it when it is back, within the
    /// expiry.
    ///
    /// # Errors
    /// [`NodeError::Transfer`] when it can't begin: nobody is named, this node is, or too many are;
    /// they are in no one cluster; one speaks profile 1.0.
    ///
    /// # Cancel safety
    /// When the future is dropped the message may be on its way all the same.
    pub async fn send_to_group(
        &self,
        to: &[NodeId],
        message: impl AsRef<[u8]>,
    ) -> Result<Sending, NodeError> {
        let octets = Bytes::copy_from_slice(message.as_ref());
        self.send_to_group_with(to, octets, SendOptions::new())
            .await
    }

    /// As [`send_to_group`](Self::send_to_group), with options, and without copying.
    ///
    /// # Errors
    /// As for [`send_to_group`](Self::send_to_group).
    ///
    /// # Cancel safety
    /// As for [`send_to_group`](Self::send_to_group).
    pub async fn send_to_group_with(
        &self,
        to: &[NodeId],
        message: Bytes,
        options: SendOptions,
    ) -> Result<Sending, NodeError> {
        let to = To::Several(to.to_vec());
        self.start(to, Content::Octets(message), options).await
    }

    /// Sends a file to several members of one cluster, as
    /// [`send_to_group`](Self::send_to_group) does a message. It is read once, as it goes; the
    /// slowest receiver that is there sets the pace. With
    /// [`storage`](crate::NodeBuilder::storage) the same call after a restart goes on where it
    /// stopped.
    ///
    /// # Errors
    /// [`NodeError::File`] when it can't be opened, else as for
    /// [`send_to_group`](Self::send_to_group).
    ///
    /// # Cancel safety
    /// As for [`send_to_group`](Self::send_to_group).
    pub async fn send_path_to_group(
        &self,
        to: &[NodeId],
        path: impl AsRef<Path>,
    ) -> Result<Sending, NodeError> {
        self.send_path_to_group_with(to, path, SendOptions::new())
            .await
    }

    /// As [`send_path_to_group`](Self::send_path_to_group), with options.
    ///
    /// # Errors
    /// As for [`send_path_to_group`](Self::send_path_to_group).
    ///
    /// # Cancel safety
    /// As for [`send_to_group`](Self::send_to_group).
    pub async fn send_path_to_group_with(
        &self,
        to: &[NodeId],
        path: impl AsRef<Path>,
        options: SendOptions,
    ) -> Result<Sending, NodeError> {
        let file = open_source(path.as_ref()).await?;
        let to = To::Several(to.to_vec());
        self.start(to, Content::File(file), options).await
    }
}

impl Cluster {
    /// Sends octets to all members that are present now, as [`Node::send_to_group`] does.
    ///
    /// # Errors
    /// As for [`Node::send_to_group`]; nobody may be present.
    ///
    /// # Cancel safety
    /// As for [`Node::send_to_group`].
    pub async fn send_to_all(&self, message: impl AsRef<[u8]>) -> Result<Sending, NodeError> {
        let to = self.present().await?;
        self.node.send_to_group(&to, message).await
    }

    /// Sends a file to all members that are present now, as [`Node::send_path_to_group`] does.
    ///
    /// # Errors
    /// As for [`Node::send_path_to_group`]; nobody may be present.
    ///
    /// # Cancel safety
    /// As for [`Node::send_to_group`].
    pub async fn send_path_to_all(&self, path: impl AsRef<Path>) -> Result<Sending, NodeError> {
        let to = self.present().await?;
        self.node.send_path_to_group(&to, path).await
    }

    /// The other members that are there.
    async fn present(&self) -> Result<Vec<NodeId>, NodeError> {
        let status = self.status().await?;
        let members = status.into_iter().flat_map(|status| status.members);
        let own = self.node.id();
        let others = members.filter(|m| m.present && m.id != own);
        Ok(others.map(|m| m.id).collect())
    }
}

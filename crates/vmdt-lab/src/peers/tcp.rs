//! Kernel TCP and MPTCP: one connection, messages one after the other with their length.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{Arrived, HEAD, Inbox, Outbox, targets};
use crate::process::Args;

/// A TCP socket as the peer's name says, with its congestion control; without Nagle's delay.
fn socket(name: &str) -> Result<Socket> {
    let (protocol, what) = if name.starts_with("mptcp") {
        (Protocol::MPTCP, "MPTCP")
    } else {
        (Protocol::TCP, "TCP")
    };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(protocol))
        .with_context(|| format!("this kernel gives no {what} socket"))?;
    let algorithm = if name.ends_with("bbr") {
        "bbr"
    } else {
        "cubic"
    };
    socket
        .set_tcp_congestion(algorithm.as_bytes())
        .with_context(|| {
            format!(
                "this kernel has no {algorithm} (sysctl net.ipv4.tcp_available_congestion_control)"
            )
        })?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

pub(super) fn listen(name: &str, at: SocketAddr) -> Result<TcpListener> {
    let socket = socket(name)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(128)?;
    Ok(TcpListener::from_std(socket.into())?)
}

pub(super) async fn dial(name: &str, args: &Args) -> Result<TcpStream> {
    let Some(&to) = targets(args)?.first() else {
        bail!("to= names no address");
    };
    let socket = TcpSocket::from_std_stream(socket(name)?.into());
    Ok(socket.connect(to).await?)
}

pub(crate) async fn serve(name: &str, args: &Args, outbox: Outbox, inbox: Inbox) -> Result<()> {
    let port = super::setting(args, "port")?;
    let listener = listen(name, SocketAddr::from(([0, 0, 0, 0], port)))?;
    tokio::spawn(async move {
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let (reader, writer) = stream.into_split();
            carry(reader, writer, outbox, inbox);
            // MPTCP's further subflows join by the listener
            std::future::pending::<()>().await;
        }
        drop(listener);
    });
    Ok(())
}

pub(crate) async fn connect(name: &str, args: &Args, outbox: Outbox, inbox: Inbox) -> Result<()> {
    let (reader, writer) = dial(name, args).await?.into_split();
    carry(reader, writer, outbox, inbox);
    Ok(())
}

/// Carries messages over a stream, in both directions.
pub(super) fn carry(
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    outbox: Outbox,
    inbox: Inbox,
) {
    tokio::spawn(write(writer, outbox));
    tokio::spawn(read(reader, inbox));
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut outbox: Outbox) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(message) = outbox.recv().await {
        buffer.clear();
        let len = u32::try_from(message.octets.len()).unwrap_or(u32::MAX);
        buffer.extend_from_slice(&len.to_be_bytes());
        buffer.extend_from_slice(&message.octets);
        writer.write_all(&buffer).await?;
        // TLS keeps a record back otherwise
        writer.flush().await?;
    }
    std::future::pending().await
}

async fn read(reader: impl AsyncRead + Unpin, inbox: Inbox) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(256 * 1024, reader);
    let mut rest = vec![0; 256 * 1024];
    loop {
        let len = reader.read_u32().await? as usize;
        let mut head = [0; HEAD];
        reader.read_exact(&mut head).await?;
        let mut left = len.saturating_sub(HEAD);
        while left > 0 {
            let most = left.min(rest.len());
            let part = rest.get_mut(..most).unwrap_or_default();
            reader.read_exact(part).await?;
            left -= most;
        }
        if let Some(arrived) = Arrived::now(&head, len) {
            let _ = inbox.send(arrived);
        }
    }
}

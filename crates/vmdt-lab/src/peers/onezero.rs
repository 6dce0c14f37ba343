//! The manner of the original software: a TCP connection for each message, one after the other.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Arrived, Inbox, Outbox, setting, targets};
use crate::process::Args;

async fn listen(port: u16, inbox: Inbox) -> Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let inbox = inbox.clone();
            tokio::spawn(async move {
                let mut octets = Vec::new();
                if stream.read_to_end(&mut octets).await.is_ok()
                    && let Some(arrived) = Arrived::now(&octets, octets.len())
                {
                    let _ = inbox.send(arrived);
                }
            });
        }
    });
    Ok(())
}

async fn write(to: SocketAddr, mut outbox: Outbox) -> Result<()> {
    while let Some(message) = outbox.recv().await {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(&message.octets).await?;
        stream.shutdown().await?;
    }
    Ok(())
}

pub(crate) async fn serve(args: &Args, outbox: Outbox, inbox: Inbox) -> Result<()> {
    listen(setting(args, "port")?, inbox).await?;
    let back = setting(args, "back")?;
    tokio::spawn(write(back, outbox));
    Ok(())
}

pub(crate) async fn connect(args: &Args, outbox: Outbox, inbox: Inbox) -> Result<()> {
    let back: SocketAddr = setting(args, "back")?;
    listen(back.port(), inbox).await?;
    let to = *targets(args)?.first().context("to= names no address")?;
    tokio::spawn(write(to, outbox));
    Ok(())
}

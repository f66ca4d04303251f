//! TLS for the session that runs queries.

use super::TlsFailure;
use super::encryption::Handshake;
use postgres::Socket;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as RustlsStream;

/// How long a server may take for the handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(15);

/// Makes encrypted connections for the library that runs queries.
#[derive(Clone)]
pub(in crate::postgres) struct Connector(pub Handshake);

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Encrypted;
    type TlsConnect = Self;
    type Error = Infallible;

    fn make_tls_connect(&mut self, _host: &str) -> Result<Self, Infallible> {
        Ok(self.clone())
    }
}

impl TlsConnect<Socket> for Connector {
    type Stream = Encrypted;
    type Error = TlsFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Encrypted, TlsFailure>> + Send>>;

    /// The library has read one byte, the server's answer, and nothing else: whatever somebody in between put behind it
    /// is taken for a part of the handshake, and ends it.
    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move {
            let handshake = TlsConnector::from(self.0.config).connect(self.0.name, stream);
            match tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await {
                Ok(connected) => connected.map(Encrypted).map_err(|error| TlsFailure::of(&error)),
                Err(_) => Err(TlsFailure::of(&io::ErrorKind::TimedOut.into())),
            }
        })
    }
}

/// An encrypted connection.
pub(in crate::postgres) struct Encrypted(RustlsStream<Socket>);

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let end_point = Handshake::end_point(session.peer_certificates());
        end_point.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

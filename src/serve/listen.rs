//! Connections: TCP or TLS, so many at once, cut when nothing moves on them. What is said on them is the router's.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Settings, log};
use crate::failure::Failure;

/// A connection on which nothing could be read or written for so long is cut. Streams of events say something every
/// 15 s: one that cannot be written to has a reader that is gone or stands still.
const STILL: Duration = Duration::from_secs(60);
const HANDSHAKE: Duration = Duration::from_secs(10);

/// PEM files.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(SocketAddr);

impl Peer {
    pub(crate) fn ip(self) -> IpAddr {
        self.0.ip().to_canonical()
    }
}

impl Connected<IncomingStream<'_, Connections>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Connections that are ready to be served.
pub(crate) struct Connections {
    ready: mpsc::Receiver<(Guarded, SocketAddr)>,
    address: SocketAddr,
    accepting: tokio::task::AbortHandle,
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Connections {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

pub(crate) async fn bind(settings: &Settings) -> Result<Connections, Failure> {
    let tls = settings.tls.as_ref().map(acceptor).transpose()?;
    let listener = TcpListener::bind(settings.address).await.map_err(|e| {
        Failure::failed(format!("cannot listen on {}: {e}", settings.address))
            .help("stop what listens there, or choose another address with --listen")
    })?;
    let address = listener.local_addr()?;
    let (send, ready) = mpsc::channel(64);
    let limit = Arc::new(Semaphore::new(settings.max_connections));
    let accepting = tokio::spawn(accept(listener, tls, limit, send)).abort_handle();
    Ok(Connections { ready, address, accepting })
}

/// Handshakes go on beside one another: one that is slow keeps nobody waiting.
async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    limit: Arc<Semaphore>,
    ready: mpsc::Sender<(Guarded, SocketAddr)>,
) {
    loop {
        // Those who come while all places are taken wait in the kernel's queue.
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn("a connection could not be accepted", serde_json::json!({ "error": error.to_string() }));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Events are small, and are wanted at once. A socket that refuses is only slower.
        let _ = tcp.set_nodelay(true);
        let (tls, ready) = (tls.clone(), ready.clone());
        tokio::spawn(async move {
            let io = match tls {
                None => Io::Plain(tcp),
                Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(tcp)).await {
                    Ok(Ok(stream)) => Io::Tls(Box::new(stream)),
                    // Scanners, and clients that speak plain HTTP: their own business.
                    _ => return,
                },
            };
            let _ = ready.send((Guarded::new(io, permit), peer)).await;
        });
    }
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, Failure> {
    let bad = |path: &PathBuf, what: &str, why: String| {
        Failure::usage(format!("{}: {why}", path.display())).help(format!("give a PEM file with {what}"))
    };
    let certs: Vec<_> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|e| bad(&files.cert, "the certificate and its chain", e.to_string()))?;
    if certs.is_empty() {
        return Err(bad(&files.cert, "the certificate and its chain", "there is no certificate in it".to_owned()));
    }
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|e| bad(&files.key, "the private key", e.to_string()))?;
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(certs, key).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => {
                let why = format!("it is not the key of the certificate in {}", files.cert.display());
                bad(&files.key, "the private key of that certificate", why)
            }
            _ => bad(&files.cert, "the certificate that belongs to the key", e.to_string()),
        })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Answers until `ending`; then finishes what is being answered.
pub(crate) async fn serve(connections: Connections, router: Router, mut ending: watch::Receiver<bool>) {
    let service = router.into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(connections, service).with_graceful_shutdown(async move {
        let _ = ending.wait_for(|ending| *ending).await;
    });
    if let Err(error) = served.await {
        log::error("serving ended", serde_json::json!({ "error": error.to_string() }));
    }
}

impl Listener for Connections {
    type Io = Guarded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guarded, SocketAddr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that is cut when nothing moves on it.
pub(crate) struct Guarded {
    io: Io,
    still: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Guarded {
    fn new(io: Io, permit: OwnedSemaphorePermit) -> Self {
        Self { io, still: Box::pin(tokio::time::sleep(STILL)), _permit: permit }
    }

    /// `done` puts the end off; while nothing is done, the end may come.
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.still.as_mut().reset(Instant::now() + STILL);
            return polled;
        }
        match self.still.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        };
        self.watch(cx, polled)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Io::Tls(io) => Pin::new(io).poll_write(cx, bytes),
        };
        self.watch(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, slices),
        };
        self.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }
}

//! Asks an open master for a session, in OpenSSH's own protocol for it (PROTOCOL.mux, version 4; seen with OpenSSH
//! 9.2), with our pipes as the session's standard streams. This is what the `ssh` client does when there is a master;
//! doing it here saves starting that program for every command, which costs more than the command.

use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

const VERSION: u32 = 4;
const HELLO: u32 = 0x0000_0001;
const NEW_SESSION: u32 = 0x1000_0002;
const PERMISSION_DENIED: u32 = 0x8000_0002;
const FAILURE: u32 = 0x8000_0003;
const SESSION_OPENED: u32 = 0x8000_0006;
/// No packet of the master is near this.
const LARGEST: u32 = 256 << 10;

/// A session that runs; dropped, the master closes it.
#[derive(Debug)]
pub(super) struct Session {
    stream: UnixStream,
}

pub(super) enum Opened {
    Session(Session),
    /// Nothing runs; why, in the master's words.
    Refused(String),
    /// There is no master behind the socket (any more); nothing runs.
    NoMaster,
}

struct Packet(Vec<u8>);

impl Packet {
    fn new(kind: u32) -> Self {
        Self(vec![0; 4]).number(kind)
    }

    fn number(mut self, n: u32) -> Self {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }

    fn string(self, text: &str) -> Self {
        let mut packet = self.number(text.len() as u32);
        packet.0.extend_from_slice(text.as_bytes());
        packet
    }

    async fn send(mut self, stream: &mut UnixStream) -> io::Result<()> {
        let length = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        stream.write_all(&self.0).await
    }
}

/// Type and content.
async fn receive(stream: &mut UnixStream) -> io::Result<(u32, Vec<u8>)> {
    let length = stream.read_u32().await?;
    if !(4..=LARGEST).contains(&length) {
        return Err(io::Error::new(ErrorKind::InvalidData, "the master speaks another protocol"));
    }
    let kind = stream.read_u32().await?;
    let mut content = vec![0; length as usize - 4];
    stream.read_exact(&mut content).await?;
    Ok((kind, content))
}

/// With one byte, as OpenSSH's `mm_send_fd` has it.
async fn send_fd(stream: &UnixStream, fd: BorrowedFd<'_>) -> io::Result<()> {
    stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [fd];
            if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                return Err(ErrorKind::OutOfMemory.into());
            }
            rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
            Ok(())
        })
        .await
}

/// Starts `command` (a line for the login shell) with these as standard input, output and error.
pub(super) async fn open(socket: &str, command: &str, fds: [BorrowedFd<'_>; 3]) -> io::Result<Opened> {
    let Ok(mut stream) = UnixStream::connect(socket).await else { return Ok(Opened::NoMaster) };
    let hello = async {
        Packet::new(HELLO).number(VERSION).send(&mut stream).await?;
        receive(&mut stream).await
    };
    match hello.await {
        Ok((HELLO, version)) if version.starts_with(&VERSION.to_be_bytes()) => {}
        Ok(_) => {
            return Err(io::Error::new(ErrorKind::Unsupported, "the master speaks another version of its protocol"));
        }
        Err(_) => return Ok(Opened::NoMaster),
    }
    // No terminal, no X11, an agent if the master's own configuration forwards it, no subsystem, no escape character.
    let request = Packet::new(NEW_SESSION).number(0).string("").number(0).number(0).number(1).number(0);
    request.number(u32::MAX).string("").string(command).send(&mut stream).await?;
    for fd in fds {
        send_fd(&stream, fd).await?;
    }
    let (kind, content) = receive(&mut stream).await?;
    match kind {
        SESSION_OPENED => Ok(Opened::Session(Session { stream })),
        FAILURE | PERMISSION_DENIED => {
            // The number of the request and the length of the text come first.
            let why = content.get(8..).map(|text| String::from_utf8_lossy(text).into_owned());
            Ok(Opened::Refused(why.unwrap_or_default()))
        }
        _ => Err(io::Error::new(ErrorKind::InvalidData, "the master gave an answer that is none")),
    }
}

impl Session {
    /// Until the master has closed it: then everything that came is in the pipes. What it says about the exit is of no
    /// use (255 may mean anything).
    pub(super) async fn closed(&mut self) {
        let mut buffer = [0; 256];
        while matches!(self.stream.read(&mut buffer).await, Ok(n) if n > 0) {}
    }
}

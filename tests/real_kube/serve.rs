//! A web server of a test, as small as it can be: what is behind a port of a pod that is played. Knows no step type.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;

/// A status, more header lines, and a body.
pub(crate) type Answer = (u16, String, String);

/// What was asked.
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Its `Content-Type`; empty without.
    pub(crate) kind: String,
    pub(crate) body: Vec<u8>,
}

/// Serves until this process ends; gives its port. `answer` is asked with the method and the path.
pub(crate) fn serve(answer: impl Fn(&str, &str) -> Answer + Send + 'static) -> u16 {
    serve_whole(move |asked| Some(answer(&asked.method, &asked.path)))
}

/// As [`serve`], one request after the other; None = whoever asked gets no answer.
pub(crate) fn serve_whole(answer: impl Fn(&Asked) -> Option<Answer> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut reader = BufReader::new(&stream);
            let mut first = String::new();
            let _ = reader.read_line(&mut first);
            let (mut length, mut kind, mut line) = (0, String::new(), String::new());
            while reader.read_line(&mut line).is_ok_and(|n| n > 0) && !line.trim().is_empty() {
                let header = std::mem::take(&mut line).to_lowercase();
                length = header.strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap_or(0));
                if let Some(value) = header.strip_prefix("content-type:") {
                    value.trim().clone_into(&mut kind);
                }
            }
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            let mut first = first.split(' ').map(str::to_owned);
            let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
            let asked = Asked { method, path, kind, body };
            let Some((status, headers, body)) = answer(&asked) else { continue };
            let length = body.len();
            let body = if asked.method == "HEAD" { "" } else { &body };
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    port
}

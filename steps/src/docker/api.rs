//! Single requests to the Engine's API through `docker system dial-stdio`, which is how Docker itself reaches daemons over
//! SSH: contexts and remote daemons keep working, and what is sent stands in no list of processes. For what the command
//! line has no words for: creating a container with exactly the configuration of another.

use runback_core::Json;
use runback_core::step::{Class, Cx, StepError};

use super::cli::Engine;

/// Sends one request, and gives the answer's status and body (null where there is none).
async fn request(engine: &Engine, cx: &Cx<'_>, path: &str, body: &Json) -> Result<(u16, Json), StepError> {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let command = engine.ask(&["system", "dial-stdio"]).stdin(head + &body);
    let exit = engine.ran(cx, command, "the daemon").await?;
    let unread = |why: &str| StepError::new(Class::Transient, format!("docker: POST {path}: {why}"));
    let (status, body) = split(&exit.stdout).ok_or_else(|| unread("the answer was cut off"))?;
    let body = if body.is_empty() { Json::Null } else { serde_json::from_slice(&body).unwrap_or(Json::Null) };
    Ok((status, body))
}

/// Sends one request that must succeed. `what` is what it is about.
pub(crate) async fn post(engine: &Engine, cx: &Cx<'_>, path: &str, body: &Json, what: &str) -> Result<Json, StepError> {
    let (status, answer) = request(engine, cx, path, body).await?;
    if (200..300).contains(&status) {
        return Ok(answer);
    }
    let said = answer["message"].as_str().unwrap_or("no reason was given");
    let class = match status {
        409 => Class::Conflict,
        500.. => Class::Transient,
        _ => Class::Permanent,
    };
    Err(StepError::new(class, format!("{what}: the daemon answered {status}: {said}")))
}

/// Status and body of an HTTP/1.1 answer; None where it is not whole.
fn split(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?.to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = &answer[end + 4..];
    if head.contains("\r\ntransfer-encoding: chunked") {
        return Some((status, unchunk(body)?));
    }
    let length = head.lines().find_map(|l| l.strip_prefix("content-length:"));
    match length.map(|l| l.trim().parse::<usize>()) {
        Some(Ok(length)) => Some((status, body.get(..length)?.to_vec())),
        Some(Err(_)) => None,
        None => Some((status, body.to_vec())),
    }
}

fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = body.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&body[..line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(line + 2..line + 2 + size)?);
        body = body.get(line + 4 + size..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_or_none() {
        let plain = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}\n";
        assert_eq!(split(plain), Some((201, b"{}".to_vec())));
        let chunked =
            b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4;x\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(split(chunked), Some((409, b"{\"a\":1}".to_vec())));
        assert_eq!(split(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((204, Vec::new())));
        for cut in [&plain[..30], &plain[..plain.len() - 2], &chunked[..60]] {
            assert_eq!(split(cut), None);
        }
    }
}

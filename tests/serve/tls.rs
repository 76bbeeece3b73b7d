//! TLS: a certificate made here, a client that trusts it alone, and files that do not fit together.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

use super::{PATIENCE, Place};

/// PEM of a certificate for localhost, and of its key.
fn certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

fn put(place: &Place, name: &str, text: &str) -> String {
    let path = place.path(name);
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

/// What a client that trusts `authority` alone reads.
fn ask(address: &str, authority: &str, request: &str) -> Result<String, std::io::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("a certificate");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let session = rustls::ClientConnection::new(Arc::new(config), name).expect("a session");
    let tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    let mut stream = rustls::StreamOwned::new(session, tcp);
    stream.write_all(request.as_bytes())?;
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        // Some end without a goodbye; what was said counts.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(String::from_utf8_lossy(&all).into_owned()),
    }
}

#[test]
fn it_serves_by_tls_and_only_by_tls() {
    let place = Place::new();
    let (certificate_pem, key_pem) = certificate();
    let (cert, key) = (put(&place, "cert.pem", &certificate_pem), put(&place, "key.pem", &key_pem));
    let token = place.token("ann", "viewer");
    let server = place.serve(&["--tls-cert", &cert, "--tls-key", &key]);
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    let me = ask(&server.address, &certificate_pem, &get("/api/v1/me")).expect("it answers");
    assert!(me.starts_with("HTTP/1.1 200") && me.contains("\"ann@127.0.0.1\""), "{me}");
    assert!(me.to_lowercase().contains("strict-transport-security: max-age="), "{me}");
    // A client that does not trust the certificate says nothing more.
    let (other, _) = certificate();
    ask(&server.address, &other, &get("/api/v1/me")).expect_err("it is nobody's certificate");
    // Plain HTTP gets no answer, and does no harm.
    let mut plain = TcpStream::connect(&server.address).expect("it listens");
    plain.set_read_timeout(Some(PATIENCE)).expect("a socket");
    plain.write_all(get("/healthz").as_bytes()).expect("it reads");
    let mut said = Vec::new();
    // Either an alert and the end, or the end.
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&said));
    let ready = ask(&server.address, &certificate_pem, &get("/readyz")).expect("it answers");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    // The page's cookie does not leave TLS, and a page of plain HTTP is another origin.
    let form = format!("token={token}");
    let log_in = |origin: &str| {
        let request = format!(
            "POST /session HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        ask(&server.address, &certificate_pem, &request).expect("it answers")
    };
    let session = log_in("https://localhost");
    assert!(session.starts_with("HTTP/1.1 204") && session.contains("Secure"), "{session}");
    assert!(log_in("http://localhost").starts_with("HTTP/1.1 403"));
}

#[test]
fn files_that_do_not_fit_are_named() {
    let place = Place::new();
    let (certificate_pem, key_pem) = certificate();
    let (_, other_key) = certificate();
    let cert = put(&place, "cert.pem", &certificate_pem);
    let key = put(&place, "key.pem", &key_pem);
    let other = put(&place, "other-key.pem", &other_key);
    let empty = put(&place, "empty.pem", "");
    let refused = |cert: &str, key: &str| {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key];
        let output = place.command(&serve).output().expect("runback runs");
        assert_eq!(output.status.code(), Some(2), "{cert} {key}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&cert, &other);
    assert!(
        said.contains("other-key.pem: it is not the key of the certificate in") && said.contains("/cert.pem"),
        "{said}"
    );
    let said = refused(&cert, &cert);
    assert!(said.contains("cert.pem") && said.contains("the private key"), "{said}");
    let said = refused(&key, &key);
    assert!(said.contains("key.pem") && said.contains("the certificate and its chain"), "{said}");
    let said = refused(&cert, &empty);
    assert!(said.contains("empty.pem") && said.contains("the private key"), "{said}");
    let said = refused(&cert, "nowhere.pem");
    assert!(said.contains("nowhere.pem"), "{said}");
}

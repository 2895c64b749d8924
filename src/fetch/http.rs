//! One request for a file, or for the rest of one.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::base::Error;

/// What a server may take to be found, and to take the connection.
const CONNECT: Duration = Duration::from_secs(30);
/// What may pass until it answers, and between two pieces of what it sends.
const SILENCE: Duration = Duration::from_secs(60);
const REDIRECTS: u32 = 5;
const TRUSTED: &str = "a certificate that this system trusts";
const TRUST: &str = "Install the system's certificates (ca-certificates on Debian), and that of your network's proxy where it has one.";

/// What a server sends of a file.
pub(super) struct Answer {
    pub(super) body: Box<dyn Read>,
    /// The first byte that comes.
    pub(super) start: u64,
    /// Bytes of the whole file, where it says.
    pub(super) total: Option<u64>,
    /// What tells this state of the file from later ones.
    pub(super) validator: Option<String>,
}

/// Why nothing came.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It will be the same the next time.
    Final(Error),
    /// It may be better the next time.
    Passing(String),
    /// Nobody is there: a wrong address, or a network that went away.
    Unreachable(String),
    /// There is nothing at or behind the byte that was asked for; the file has so many bytes, where the server says.
    Past(Option<u64>),
}

/// A client that trusts whom the system trusts, and takes the proxy that the environment names.
pub(super) fn client(url: &str) -> Agent {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        // a redirect must not lead to an address that anybody can answer for
        .https_only(url.starts_with("https://"))
        .http_status_as_error(false)
        .max_redirects(REDIRECTS)
        .user_agent(concat!("u2seg/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .build();
    config.new_agent()
}

/// An address as messages and files may have it: without a name and password, and without what stands behind `?`, which may
/// be a key.
pub(super) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').map_or((rest, None), |(h, p)| (h, Some(p)));
            let host = host.rsplit('@').next().unwrap_or_default();
            let path = path.map(|path| format!("/{path}")).unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => url.to_string(),
    }
}

/// Asks for a file from a byte on. With a validator, a server that has another state of the file sends all of it.
pub(super) fn ask(
    client: &Agent,
    url: &str,
    from: u64,
    validator: Option<&str>,
) -> std::result::Result<Answer, Refusal> {
    let mut request = client.get(url).header(header::ACCEPT_ENCODING, "identity");
    if from > 0 {
        request = request.header(header::RANGE, format!("bytes={from}-"));
        if let Some(validator) = validator {
            request = request.header(header::IF_RANGE, validator);
        }
    }
    let response = request.call().map_err(|e| refusal(url, &e))?;
    let status = response.status();
    match status {
        StatusCode::OK => Ok(whole(response)),
        StatusCode::PARTIAL_CONTENT => part(url, response),
        StatusCode::RANGE_NOT_SATISFIABLE => Err(Refusal::Past(range(response.headers()).1)),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Err(Refusal::Passing(format!("the server says {status}")))
        }
        _ if status.is_server_error() => Err(Refusal::Passing(format!("the server says {status}"))),
        _ => Err(Refusal::Final(no_file(url, status))),
    }
}

fn whole(response: Response<Body>) -> Answer {
    let headers = response.headers();
    let (total, validator) = (length(headers), validator(headers));
    Answer { body: Box::new(response.into_body().into_reader()), start: 0, total, validator }
}

fn part(url: &str, response: Response<Body>) -> std::result::Result<Answer, Refusal> {
    let headers = response.headers();
    let validator = validator(headers);
    let (Some(start), total) = range(headers) else {
        let found = "an answer 206 that does not say which part of the file it is";
        let remedy = "Name another mirror, or remove what was fetched so far.";
        return Err(Refusal::Final(Error::file(shown(url), found, "a Content-Range", remedy)));
    };
    Ok(Answer { body: Box::new(response.into_body().into_reader()), start, total, validator })
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, header::CONTENT_LENGTH)?.parse().ok()
}

/// A strong one: of weak ones the bytes may differ.
fn validator(headers: &HeaderMap) -> Option<String> {
    let etag = text(headers, header::ETAG).filter(|tag| !tag.starts_with("W/"));
    etag.or_else(|| text(headers, header::LAST_MODIFIED)).map(String::from)
}

/// First byte and size of the whole, of `bytes 7-9/10` or `bytes */10`.
fn range(headers: &HeaderMap) -> (Option<u64>, Option<u64>) {
    let parts = || {
        let range = text(headers, header::CONTENT_RANGE)?.trim().strip_prefix("bytes")?;
        range.trim().split_once('/')
    };
    let Some((part, total)) = parts() else { return (None, None) };
    let start = part.split_once('-').and_then(|(start, _)| start.trim().parse().ok());
    (start, total.trim().parse().ok())
}

/// What a failed call means.
fn refusal(url: &str, error: &ureq::Error) -> Refusal {
    let fail = |found: &str, expected: &str, remedy: &str| {
        Refusal::Final(Error::file(shown(url), found, expected, remedy))
    };
    match error {
        ureq::Error::HostNotFound => fail(
            "no server of this name",
            "a server that can be reached",
            "Look at the address and at the network; behind a proxy, set HTTPS_PROXY. `mirror` names another server.",
        ),
        ureq::Error::Rustls(e) => fail(&untrusted(e), TRUSTED, TRUST),
        ureq::Error::RequireHttpsOnly(_) => fail(
            "a redirect to an address without HTTPS",
            "HTTPS to the end",
            "Name the address that it leads to, if you trust it.",
        ),
        ureq::Error::TooManyRedirects => fail(
            &format!("more than {REDIRECTS} redirects"),
            "a file",
            "Look at the address in a browser.",
        ),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => fail(
            &format!("no address that works ({error})"),
            "https://SERVER/FILE",
            "Look at the address, and at HTTPS_PROXY where it is set.",
        ),
        ureq::Error::Io(e) => match refused(e) {
            Some(e) => fail(&untrusted(e), TRUSTED, TRUST),
            None if unreachable(e) => Refusal::Unreachable(e.to_string()),
            None => Refusal::Passing(error.to_string()),
        },
        other => Refusal::Passing(other.to_string()),
    }
}

/// Whether the handshake failed for what the server is, not for how it was reached.
fn refused(e: &std::io::Error) -> Option<&rustls::Error> {
    let inner = e.get_ref()?.downcast_ref::<rustls::Error>()?;
    matches!(inner, rustls::Error::InvalidCertificate(_)).then_some(inner)
}

fn untrusted(e: &rustls::Error) -> String {
    format!("a connection that cannot be trusted ({e})")
}

/// Whether a name or an address leads to no server; the standard library has no kind for names.
fn unreachable(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(e.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
        || e.to_string().contains("lookup")
}

fn no_file(url: &str, status: StatusCode) -> Error {
    let remedy = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "Log in with a browser and download it there, or name a `mirror` that gives it to everybody."
        }
        _ => "Look at the address, or name another `mirror`.",
    };
    Error::file(shown(url), format!("the answer {status}"), "a file", remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (text, expected) in [
            ("bytes 7-9/10", (Some(7), Some(10))),
            ("bytes 7-9/*", (Some(7), None)),
            ("bytes */10", (None, Some(10))),
            ("lines 7-9/10", (None, None)),
            ("bytes -9/10", (None, Some(10))),
            ("bytes 99999999999999999999-9/10", (None, Some(10))),
            ("", (None, None)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, text.parse().unwrap());
            assert_eq!(range(&headers), expected, "{text}");
        }
    }

    #[test]
    fn weak_tags_are_left_out() {
        let mut headers = HeaderMap::new();
        assert_eq!(validator(&headers), None);
        headers.insert(header::ETAG, "W/\"1\"".parse().unwrap());
        headers.insert(header::LAST_MODIFIED, "then".parse().unwrap());
        assert_eq!(validator(&headers).as_deref(), Some("then"));
        headers.insert(header::ETAG, "\"1\"".parse().unwrap());
        assert_eq!(validator(&headers).as_deref(), Some("\"1\""));
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        for (url, expected) in [
            ("https://me:secret@host:8/a/b.tar?key=secret#x", "https://host:8/a/b.tar"),
            ("http://host", "http://host"),
            ("https://host/a@b", "https://host/a@b"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}

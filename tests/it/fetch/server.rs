//! A server on loopback that does what a test asks of it.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is done with a request.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// All that is asked for.
    Whole,
    /// So many bytes of it, then the connection ends.
    Cut(usize),
    /// So many bytes of it, then nothing more comes.
    Stall(usize),
    /// The whole file, whatever part is asked for.
    NoRanges,
    /// The whole file without its size.
    NoLength,
    /// Another part than the one that is asked for.
    OtherPart,
    /// A status and no file.
    Status(&'static str),
    /// A redirect to a path of the same server.
    Redirect(&'static str),
}

pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves a file under every path. Requests are answered in order; those behind the last answer get all that they ask for.
    pub fn start(file: &[u8], answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (file, told) = (Arc::new(file.to_vec()), requests.clone());
        let answers = Mutex::new(VecDeque::from(answers.to_vec()));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                let request = read(&mut stream);
                let answer = answers.lock().unwrap().pop_front().unwrap_or(Answer::Whole);
                told.lock().unwrap().push(request.clone());
                let file = file.clone();
                std::thread::spawn(move || serve(&mut stream, &file, &request, answer));
            }
        });
        Self { url, requests }
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.url)
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn read(stream: &mut TcpStream) -> String {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        request.push(byte[0]);
    }
    String::from_utf8(request).unwrap().to_lowercase()
}

fn serve(stream: &mut TcpStream, file: &[u8], request: &str, answer: Answer) {
    let from = request.lines().find_map(|line| line.strip_prefix("range: bytes="));
    let from = from.map_or(0, |range| range.trim_end_matches('-').trim().parse().unwrap());
    let (from, most) = match answer {
        Answer::NoRanges | Answer::NoLength => (0, file.len()),
        Answer::Cut(most) | Answer::Stall(most) => (from, most),
        Answer::OtherPart => (from + 1, file.len()),
        _ => (from, file.len()),
    };
    let head = match answer {
        Answer::Status(status) => {
            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        }
        Answer::Redirect(path) => {
            format!(
                "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n"
            )
        }
        Answer::NoLength => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".into(),
        _ if from > 0 && from >= file.len() => {
            let all = file.len();
            format!("HTTP/1.1 416 No\r\nContent-Range: bytes */{all}\r\nContent-Length: 0\r\n\r\n")
        }
        _ => {
            let (all, rest) = (file.len(), file.len() - from);
            let status = match from {
                0 => "200 OK".to_string(),
                _ => format!("206 Part\r\nContent-Range: bytes {from}-{}/{all}", all - 1),
            };
            format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nETag: \"one\"\r\nContent-Length: {rest}\r\n\r\n"
            )
        }
    };
    let no_body = matches!(answer, Answer::Status(_) | Answer::Redirect(_));
    let body = if no_body { &[][..] } else { file.get(from..).unwrap_or_default() };
    let body = &body[..body.len().min(most)];
    // a client that has enough goes away
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let _ = stream.flush();
    if let Answer::Stall(_) = answer {
        std::thread::sleep(Duration::from_secs(20));
    }
}

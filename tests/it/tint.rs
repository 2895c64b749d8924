//! Tint, the other compiler of WGSL, takes every kernel that plans ask for. It comes with Chromium, which runs WebGPU on its own
//! software adapter and compiles what a page fetches from here.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::common::nets;
use u2seg::low_level::shader::{KernelKey, needs, sources, standard};

const PAGE: &str = include_str!("common/tint.html");

/// The texts, each once, under the name of a kernel that has it. Cooperative matrices are naga's own, and the browser's adapter does not reckon
/// in f16: such a kernel differs from one in f32, which is there, in its first line and in what an alias stands for.
fn texts() -> BTreeMap<String, String> {
    let plain = sources().iter().map(|(file, _)| KernelKey::new(file));
    let keys = nets::kernels().into_iter().chain(plain);
    let known = |key: &KernelKey| needs(key).is_ok_and(|needs| !needs.cooperative && !needs.halves);
    keys.filter(known).map(|key| (standard(&key).unwrap(), format!("{key:?}"))).collect()
}

/// Answers one request: the page, the texts, or the outcome, which goes to `outcomes`.
fn answer(stream: TcpStream, texts: &[u8], outcomes: &Sender<Vec<u8>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let (kind, body) = match request.split(' ').nth(1) {
        Some("/") => ("text/html", PAGE.as_bytes()),
        Some("/texts") => ("application/json", texts),
        Some("/outcome") => {
            let mut outcome = vec![0; length];
            reader.read_exact(&mut outcome)?;
            // nobody listens where the time is over
            let _ = outcomes.send(outcome);
            ("text/plain", &b""[..])
        }
        _ => ("text/plain", &b""[..]),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let mut stream = &stream;
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

/// A browser, which ends with the test.
struct Browser(Child);

impl Browser {
    fn open(address: &str, profile: &std::path::Path) -> Self {
        let program = std::env::var("U2SEG_CHROMIUM").unwrap_or("chromium".into());
        let flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu-sandbox",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--enable-unsafe-webgpu",
            "--use-webgpu-adapter=swiftshader",
            "--enable-features=Vulkan,WebGPU",
        ];
        let mut command = Command::new(&program);
        command.args(flags).arg(format!("--user-data-dir={}", profile.display())).arg(address);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|e| panic!("{program}: {e}")))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the page says of the texts.
fn compile(texts: &BTreeMap<String, String>) -> serde_json::Value {
    let named: Vec<_> = texts.iter().map(|(text, name)| (name, text)).collect();
    let texts = Arc::new(serde_json::to_vec(&named).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, outcomes) = channel();
    std::thread::spawn(move || {
        // a thread each: browsers open connections ahead of need
        for stream in listener.incoming().flatten() {
            let (texts, sender) = (texts.clone(), sender.clone());
            std::thread::spawn(move || answer(stream, &texts, &sender));
        }
    });
    let profile = tempfile::tempdir().unwrap();
    let _browser = Browser::open(&address, profile.path());
    let outcome = outcomes.recv_timeout(Duration::from_secs(600)).expect("an outcome in time");
    serde_json::from_slice(&outcome).unwrap()
}

#[test]
#[cfg_attr(not(chromium), ignore = "no Chromium: set U2SEG_CHROMIUM")]
fn tint_takes_every_kernel_that_plans_ask_for() {
    let mut texts = texts();
    let count = texts.len();
    // what must be refused shows that the browser looks
    texts.insert("fn broken() -> u32 { return 1.0; }".into(), "broken".into());
    let outcome = compile(&texts);
    assert_eq!(outcome["compiled"], count + 1, "{outcome}");
    let complaints = outcome["complaints"].as_array().unwrap();
    let (broken, others): (Vec<_>, Vec<_>) = complaints.iter().partition(|c| c[0] == "broken");
    println!("{count} texts, {} with errors", others.len());
    assert_eq!(broken.len(), 1);
    let list: Vec<String> = others.iter().map(|c| format!("{}: {}", c[0], c[1])).collect();
    assert!(list.is_empty(), "{}", list.join("\n"));
}

//! A hub for tests: answers of one's own, over real connections.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::Hub;

/// The commit that all files are of.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What came over a connection.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Where the wanted bytes begin.
    pub(crate) fn wanted(&self) -> Option<usize> {
        let range = self.header("range").strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes that are sent of the body before the connection breaks.
    pub(crate) cut: usize,
}

impl Reply {
    pub(crate) fn new(status: u16, body: &[u8]) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.to_vec(),
            cut: usize::MAX,
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A hub of its own, which answers one request a connection.
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(mut answer: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let Some(request) = read(&stream) else {
                    continue;
                };
                let reply = answer(&request);
                let is_head = request.method == "HEAD";
                all.lock().unwrap().push(request);
                // A client that has what it wants may be gone.
                let _ = write(&mut stream, &reply, is_head);
            }
        });
        Self { url, seen }
    }

    pub(crate) fn hub(&self, token: Option<&str>) -> Hub {
        let url = self.url.clone();
        let token = token.map(str::to_owned);
        let mut hub = Hub::from_env(|name| match name {
            "HF_ENDPOINT" => Some(format!("{url}/")),
            "HF_TOKEN" => token.clone(),
            _ => None,
        });
        hub.pause = Duration::ZERO;
        hub
    }

    pub(crate) fn seen(&self, method: &str) -> Vec<Request> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|request| request.method == method)
            .cloned()
            .collect()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some(Request {
        method,
        path,
        headers,
    })
}

fn write(stream: &mut TcpStream, reply: &Reply, is_head: bool) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {} Said\r\nConnection: close\r\n",
        reply.status
    )?;
    write!(stream, "Content-Length: {}\r\n", reply.body.len())?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if !is_head {
        stream.write_all(&reply.body[..reply.cut.min(reply.body.len())])?;
    }
    stream.flush()
}

/// Answers as the hub does for a file of its own storage, from where the client wants it.
pub(crate) fn served(request: &Request, bytes: &[u8], etag: &str) -> Reply {
    let reply = match request.wanted() {
        Some(start) if start < bytes.len() => Reply::new(206, &bytes[start..]).with(
            "Content-Range",
            format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()),
        ),
        Some(_) => Reply::new(416, b""),
        None => Reply::new(200, bytes),
    };
    reply
        .with("ETag", format!("\"{etag}\""))
        .with("X-Repo-Commit", COMMIT)
}

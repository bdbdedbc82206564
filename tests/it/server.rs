//! A chat server on the loopback that behaves as it is told, well or badly.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Manner {
    /// A chat completion with this text.
    Say(String),
    /// The same, cut off at the longest length.
    CutOff(String),
    /// The same, after so long.
    Slow(Duration, String),
    /// A status with headers and a body.
    Status(u16, &'static str, String),
    /// A body that ends before its length.
    BreaksOff,
    /// 200 and these bytes.
    Body(String),
    /// A body without an end.
    Endless,
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub authorization: Option<String>,
    pub body: Value,
}

impl Seen {
    pub fn prompt(&self) -> &str {
        self.body["messages"][0]["content"].as_str().unwrap()
    }
}

/// A server that runs until the test ends.
pub struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Starts a server; `manner` gets the number of the request, from 0, and the request.
    pub fn start(manner: impl Fn(usize, &Seen) -> Manner + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(vec![]));
        let (log, manner) = (Arc::clone(&seen), Arc::new(manner));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, manner) = (Arc::clone(&log), Arc::clone(&manner));
                std::thread::spawn(move || answer(stream, &log, &*manner));
            }
        });
        Self { url, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// Serves one request; the connection is not used again. None if the client goes away.
fn answer(mut stream: TcpStream, log: &Mutex<Vec<Seen>>, manner: &dyn Fn(usize, &Seen) -> Manner) -> Option<()> {
    let seen = read(&stream)?;
    let number = {
        let mut log = log.lock().unwrap();
        log.push(seen.clone());
        log.len() - 1
    };
    let mut send = |status: u16, headers: &str, length: usize, body: &str| {
        let head = format!(
            "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).ok()
    };
    match manner(number, &seen) {
        Manner::Say(text) => {
            let body = completion(&text, "stop");
            send(200, "", body.len(), &body)
        }
        Manner::CutOff(text) => {
            let body = completion(&text, "length");
            send(200, "", body.len(), &body)
        }
        Manner::Slow(time, text) => {
            std::thread::sleep(time);
            let body = completion(&text, "stop");
            send(200, "", body.len(), &body)
        }
        Manner::Status(status, headers, body) => send(status, headers, body.len(), &body),
        Manner::BreaksOff => {
            let body = completion("<think>", "stop");
            send(200, "", body.len() + 100, &body)
        }
        Manner::Body(body) => send(200, "", body.len(), &body),
        Manner::Endless => {
            send(200, "", usize::MAX >> 1, "{\"choices\": [")?;
            loop {
                send_on(&mut stream)?;
            }
        }
    }
}

fn send_on(stream: &mut TcpStream) -> Option<()> {
    stream.write_all(&[b' '; 65_536]).ok()
}

fn read(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_string();
    let (mut length, mut authorization) = (0, None);
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => authorization = Some(value.trim().to_string()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { path, authorization, body: serde_json::from_slice(&body).ok()? })
}

/// A chat completion of 10 prompt tokens and 5 of its own.
fn completion(text: &str, finish: &str) -> String {
    json!({
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": finish }],
        "usage": { "prompt_tokens": 10, "completion_tokens": 5 },
    })
    .to_string()
}

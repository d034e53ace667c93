//! A lean HTTP client, so that a load measures the server and not its client: requests are made
//! beforehand, a connection is kept, and a reply is read to its end and looked at only for its status.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use headwater_schema::Problem;

use crate::failed;

/// One kept connection.
pub struct Client {
    stream: TcpStream,
    reply: Vec<u8>,
}

/// A request as bytes.
pub fn request(path: &str, media_type: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A request without a body, as bytes.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes()
}

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Self, Problem> {
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .map_err(failed)?;
        Ok(Self {
            stream,
            reply: vec![0; 1 << 20],
        })
    }

    /// Sends a request and reads its reply, which has to be a good one.
    pub fn call(&mut self, request: &[u8]) -> Result<&[u8], Problem> {
        let (status, body) = self.exchange(request)?;
        if status != 200 {
            return Err(failed(String::from_utf8_lossy(body)));
        }
        Ok(body)
    }

    /// Sends a request and reads its reply, whatever it is: its status and its body.
    pub fn exchange(&mut self, request: &[u8]) -> Result<(u16, &[u8]), Problem> {
        self.stream.write_all(request).map_err(failed)?;
        let mut filled = 0;
        loop {
            if filled == self.reply.len() {
                self.reply.resize(filled * 2, 0);
            }
            let read = self
                .stream
                .read(&mut self.reply[filled..])
                .map_err(failed)?;
            if read == 0 {
                return Err(failed("the server closed the connection"));
            }
            filled += read;
            let Some(end) = find(&self.reply[..filled], b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8_lossy(&self.reply[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "))
                .and_then(|l| l.parse::<usize>().ok())
                .ok_or_else(|| failed("the reply has no length"))?;
            if filled < end + 4 + length {
                self.reply.resize(self.reply.len().max(end + 4 + length), 0);
                continue;
            }
            let status = head
                .strip_prefix("http/1.1 ")
                .and_then(|l| l.get(..3)?.parse::<u16>().ok())
                .ok_or_else(|| failed("the reply has no status"))?;
            return Ok((status, &self.reply[end + 4..end + 4 + length]));
        }
    }
}

/// Runs `work` on some connections at once; what each came to.
pub fn each_connection<T: Send>(
    address: SocketAddr,
    connections: usize,
    work: impl Fn(&mut Client) -> Result<T, Problem> + Sync,
) -> Result<Vec<T>, Problem> {
    each(connections, || work(&mut Client::connect(address)?))
}

/// Runs `work` on some threads at once; what each came to.
pub fn each<T: Send>(
    threads: usize,
    work: impl Fn() -> Result<T, Problem> + Sync,
) -> Result<Vec<T>, Problem> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        threads
            .into_iter()
            .map(|t| {
                t.join()
                    .unwrap_or_else(|_| Err(failed("a connection's thread panicked")))
            })
            .collect()
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|w| w == wanted)
}

//! As lean a client for gRPC: one connection of HTTP/2, one call at a time, whose message was made beforehand and whose
//! answer is given as its bytes. It knows of HTTP/2 what that takes, and no compression of headers.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use headwater_schema::Problem;

use crate::failed;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// `END_STREAM` of data and headers, `ACK` of settings and pings.
const LAST: u8 = 1;
const END_HEADERS: u8 = 4;
/// Frames of more have to be agreed upon first.
const FRAME_BYTES_MAX: usize = 16_384;
/// What there may be in an answer besides its message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// One kept connection, to one method.
pub struct GrpcClient {
    stream: BufReader<TcpStream>,
    headers: Vec<u8>,
    next_id: u32,
    frame: Vec<u8>,
    answer: Vec<u8>,
}

impl GrpcClient {
    /// `path` is `/package.Service/Method`.
    pub fn connect(address: SocketAddr, path: &str) -> Result<Self, Problem> {
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).map_err(failed)?;
        // Of HPACK's static table: POST, http; then names of the table with values as they stand.
        let mut headers = vec![0x83, 0x86];
        for (name, value) in [
            (&[0x04][..], path),
            (&[0x01], "bench"),
            (&[0x0f, 0x10], "application/grpc"),
            (b"\x00\x02te", "trailers"),
        ] {
            let length = u8::try_from(value.len()).map_err(failed)?;
            if length >= 127 {
                return Err(failed("the path is too long"));
            }
            headers.extend_from_slice(name);
            headers.push(length);
            headers.extend_from_slice(value.as_bytes());
        }
        let mut start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        put(&mut start, SETTINGS, 0, 0, &[]);
        // Room for all that a load is answered: from 65,535 bytes to the most there is.
        put(
            &mut start,
            WINDOW_UPDATE,
            0,
            0,
            &0x7fff_0000_u32.to_be_bytes(),
        );
        (&stream).write_all(&start).map_err(failed)?;
        Ok(Self {
            stream: BufReader::new(stream),
            headers,
            next_id: 1,
            frame: Vec::new(),
            answer: Vec::new(),
        })
    }

    /// Calls the method; the bytes of the answer's message. What is refused comes without one.
    pub fn call(&mut self, message: &[u8]) -> Result<&[u8], Problem> {
        let id = self.next_id;
        self.next_id += 2;
        let mut data = vec![0];
        data.extend_from_slice(&u32::try_from(message.len()).map_err(failed)?.to_be_bytes());
        data.extend_from_slice(message);
        if data.len() > FRAME_BYTES_MAX {
            return Err(failed("the message is too large for one frame"));
        }
        let mut out = Vec::with_capacity(data.len() + self.headers.len() + 18);
        put(&mut out, HEADERS, END_HEADERS, id, &self.headers);
        put(&mut out, DATA, LAST, id, &data);
        self.stream.get_ref().write_all(&out).map_err(failed)?;
        self.answer.clear();
        while !self.read_frame(id)? {}
        match self.answer.get(PREFIX_BYTES..) {
            Some(message) if !message.is_empty() => Ok(message),
            _ => Err(failed("the call was refused")),
        }
    }

    /// Takes the next frame; true once the answer to a call is whole.
    fn read_frame(&mut self, id: u32) -> Result<bool, Problem> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).map_err(failed)?;
        let [l0, l1, l2, kind, flags, i0, i1, i2, i3] = head;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        self.frame.resize(length, 0);
        self.stream.read_exact(&mut self.frame).map_err(failed)?;
        let last = flags & LAST != 0;
        match kind {
            DATA | HEADERS if u32::from_be_bytes([i0, i1, i2, i3]) != id => {
                return Err(failed("an answer to another call"));
            }
            DATA => self.answer.extend_from_slice(&self.frame),
            HEADERS => {}
            RESET | GO_AWAY => return Err(failed("the server ended the call")),
            SETTINGS if !last => return self.acknowledge(kind, &[]),
            PING if !last => {
                let told = self.frame.clone();
                return self.acknowledge(kind, &told);
            }
            _ => return Ok(false),
        }
        Ok(last)
    }

    fn acknowledge(&self, kind: u8, payload: &[u8]) -> Result<bool, Problem> {
        let mut out = Vec::new();
        put(&mut out, kind, LAST, 0, payload);
        self.stream.get_ref().write_all(&out).map_err(failed)?;
        Ok(false)
    }
}

fn put(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

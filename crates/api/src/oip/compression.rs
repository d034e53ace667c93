//! Bodies that are compressed: gzip and deflate, both ways, within the limit of a body.

use std::io::Read;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder, ZlibDecoder, ZlibEncoder};
use headwater_schema::Problem;

use crate::error::{ApiError, malformed};

/// Bytes from which an answer is worth compressing.
const WORTH_BYTES_MIN: usize = 1024;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    /// zlib's format, as HTTP means it.
    Deflate,
}

impl Coding {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The one of a request's body; none where it isn't compressed.
    pub(crate) fn of_request(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let given = text(headers, &header::CONTENT_ENCODING);
        Ok(match given.trim() {
            "" | "identity" => None,
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            other => {
                let title = format!("a body compressed by `{other}` isn't read here");
                let problem = Problem::user("unsupported-encoding", title);
                return Err(problem
                    .hint("send it as it is, or by gzip or deflate")
                    .into());
            }
        })
    }

    /// One that the caller takes, for an answer that is large enough.
    pub(crate) fn of_answer(headers: &HeaderMap, bytes: usize) -> Option<Self> {
        if bytes < WORTH_BYTES_MIN {
            return None;
        }
        let accepted = text(headers, &header::ACCEPT_ENCODING);
        let takes = |coding: &Self| {
            accepted.split(',').any(|one| {
                let (name, quality) = one.split_once(';').unwrap_or((one, ""));
                let quality = quality.trim().strip_prefix("q=").map(str::parse::<f32>);
                let refused = matches!(quality, Some(Ok(q)) if q <= 0.0);
                name.trim() == coding.name() && !refused
            })
        };
        [Self::Gzip, Self::Deflate].into_iter().find(takes)
    }

    /// The body as it was; refuses one that grows beyond `bytes_max`.
    pub(crate) fn unpack(self, body: &[u8], bytes_max: usize) -> Result<Bytes, ApiError> {
        let mut unpacked = Vec::new();
        let most = u64::try_from(bytes_max)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let read = match self {
            Self::Gzip => GzDecoder::new(body).take(most).read_to_end(&mut unpacked),
            Self::Deflate => ZlibDecoder::new(body).take(most).read_to_end(&mut unpacked),
        };
        read.map_err(|e| malformed(format!("the body is no {}: {e}", self.name())))?;
        if unpacked.len() > bytes_max {
            return Err(Problem::user("body-too-large", "the body is too large")
                .detail(format!("more than {bytes_max} bytes once unpacked"))
                .hint("send it in parts, or raise `limits.body_bytes_max`")
                .into());
        }
        Ok(unpacked.into())
    }

    pub(crate) fn pack(self, body: &[u8]) -> Result<Vec<u8>, ApiError> {
        let (mut packed, level) = (Vec::new(), Compression::fast());
        let read = match self {
            Self::Gzip => GzEncoder::new(body, level).read_to_end(&mut packed),
            Self::Deflate => ZlibEncoder::new(body, level).read_to_end(&mut packed),
        };
        read.map_err(|e| Problem::internal("reply", "a reply can't be compressed").detail(e))?;
        Ok(packed)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    let given = headers.get(name).map(HeaderValue::to_str);
    given.and_then(Result::ok).unwrap_or_default()
}

//! Arrow IPC files (Feather), as pandas and polars write them: their batches lie where the footer says. What lies before it need
//! not be a stream, and is none where polars wrote it.

use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::FileDecoder;
use arrow::ipc::{Block, root_as_footer};

use super::arrow_body::{Batches, batch_too_large, guarded, unreadable};
use crate::Problem;

/// What such a file begins and ends with.
const MAGIC: &[u8; 6] = b"ARROW1";
/// Bytes after its footer: the footer's length, and the magic number.
const TAIL: usize = 10;

/// What the footer says.
struct Footer {
    decoder: FileDecoder,
    dictionaries: Vec<Block>,
    batches: Vec<Block>,
}

/// Whether a file of that length, whose bytes `read` gives at any place, is an Arrow IPC file and no stream.
pub fn is_arrow_file(
    length: u64,
    read: impl Fn(u64, &mut [u8]) -> Result<(), Problem>,
) -> Result<bool, Problem> {
    let mut head = [0; MAGIC.len()];
    if length < head.len() as u64 {
        return Ok(false);
    }
    read(0, &mut head)?;
    Ok(head == *MAGIC)
}

/// The record batches of an Arrow IPC file. Its dictionaries are held together, and so are the bytes of one batch: of
/// either `batch_bytes_max` at most.
pub fn file_batches<'a>(
    length: u64,
    batch_bytes_max: usize,
    read: impl Fn(u64, &mut [u8]) -> Result<(), Problem> + 'a,
) -> Result<Batches<'a>, Problem> {
    let footer = footer(length, &read)?;
    let block = move |block: &Block| {
        let at = u64::try_from(block.offset()).ok();
        let bytes = block
            .bodyLength()
            .checked_add(block.metaDataLength().into());
        let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
        let end = at.zip(bytes).and_then(|(at, bytes)| at.checked_add(bytes));
        let (Some(at), Some(bytes), Some(_)) = (at, bytes, end.filter(|end| *end <= length)) else {
            return Err(unreadable("Its footer contradicts itself"));
        };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if bytes > batch_bytes_max {
            return Err(batch_too_large(batch_bytes_max));
        }
        let mut buffer = vec![0; bytes];
        read(at, &mut buffer)?;
        Ok(Buffer::from_vec(buffer))
    };
    let mut decoder = footer.decoder;
    let mut held = 0;
    for dictionary in &footer.dictionaries {
        let bytes = block(dictionary)?;
        held += bytes.len();
        if held > batch_bytes_max {
            return Err(batch_too_large(batch_bytes_max));
        }
        guarded(|| decoder.read_dictionary(dictionary, &bytes))?;
    }
    let batches = footer.batches.into_iter().filter_map(move |batch| {
        let bytes = block(&batch);
        let read = bytes.and_then(|bytes| guarded(|| decoder.read_record_batch(&batch, &bytes)));
        read.transpose()
    });
    Ok(Box::new(batches))
}

fn footer(
    length: u64,
    read: &impl Fn(u64, &mut [u8]) -> Result<(), Problem>,
) -> Result<Footer, Problem> {
    let cut_off = || unreadable("It is an Arrow file that was cut off");
    let mut tail = [0; TAIL];
    let end = length.checked_sub(TAIL as u64).ok_or_else(cut_off)?;
    read(end, &mut tail)?;
    let [a, b, c, d, magic @ ..] = tail;
    let bytes = u32::from_le_bytes([a, b, c, d]);
    let start = end.checked_sub(bytes.into());
    let start = start.filter(|_| magic == *MAGIC).ok_or_else(cut_off)?;
    let mut bytes = vec![0; bytes as usize];
    read(start, &mut bytes)?;
    guarded(|| {
        let footer = root_as_footer(&bytes).map_err(|e| e.to_string())?;
        let schema = footer.schema().ok_or("Its footer has no schema")?;
        if !schema.endianness().equals_to_target_endianness() {
            return Err("Its numbers are in the other byte order".to_owned());
        }
        Ok(Footer {
            decoder: FileDecoder::new(Arc::new(fb_to_schema(schema)), footer.version()),
            dictionaries: footer.dictionaries().iter().flatten().copied().collect(),
            batches: footer.recordBatches().iter().flatten().copied().collect(),
        })
    })
}

//! A file of facts in parts that can be sent by themselves, so that a file of any size takes little
//! memory. Rows are judged where the parts are taken in, not here.

use std::cell::Cell;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use headwater_batch::{SpineReader, Stop, batch_bytes, compact};
use headwater_env::{Env, FileError, ReadFile};
use headwater_schema::Problem;
use headwater_schema::decode::{
    BodyFormat, file_batches, is_arrow_file, parquet_batches, stream_batches,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

/// About how many bytes of lines are a part, and how many bytes of columns at most.
const PART_BYTES: usize = 4 << 20;
/// Lines of a part at most: a server takes so many rows unless its project says otherwise.
const PART_LINES_MAX: usize = 50_000;
/// The longest line that is looked for the end of.
const LINE_BYTES_MAX: usize = 16 << 20;
/// What is only read as a whole: a JSON array, a record batch of an Arrow stream.
const WHOLE_BYTES_MAX: usize = 1 << 30;
/// Bytes of an Arrow stream that are read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Some rows of a file, as a body of their own.
pub struct Part {
    pub format: BodyFormat,
    pub body: Vec<u8>,
    /// How much of the file has been read with it.
    pub read_bytes: u64,
}

/// Reads a file part by part; what `sink` refuses ends it. A JSON array is one part.
pub fn read_parts(
    env: &Env,
    path: &Path,
    format: BodyFormat,
    sink: &mut dyn FnMut(Part) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let file = env.files.open_read(path).map_err(unreadable)?;
    parts_of(&Arc::from(file), format, sink)
}

/// The same of a file that is open.
pub(crate) fn parts_of(
    file: &Arc<dyn ReadFile>,
    format: BodyFormat,
    sink: &mut dyn FnMut(Part) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let length = file.length().map_err(unreadable)?;
    let read = |at: u64, into: &mut [u8]| file.read_at(at, into).map_err(unreadable);
    match format {
        BodyFormat::Parquet => parquet(file.clone(), length, sink),
        BodyFormat::Ndjson | BodyFormat::Csv => lines(&read, length, format, sink),
        BodyFormat::ArrowStream => arrow(&read, length, sink),
        BodyFormat::Json => {
            let whole = usize::try_from(length).ok();
            let whole = whole.filter(|bytes| *bytes <= WHOLE_BYTES_MAX);
            let mut body = vec![0; whole.ok_or_else(array_too_large)?];
            read(0, &mut body)?;
            sink(Part {
                format,
                body,
                read_bytes: length,
            })
        }
    }
}

/// Reads a spine's rows. Text is looked at as a whole before the first of them.
pub(crate) fn spine_rows(
    file: &Arc<dyn ReadFile>,
    format: BodyFormat,
    mut reader: SpineReader,
    stop: &Stop,
    sink: &mut dyn FnMut(RecordBatch) -> Result<(), Problem>,
) -> Result<(), Problem> {
    // A file of no bytes has no rows, whatever its format.
    if file.length().map_err(unreadable)? > 0 {
        if format.is_text() {
            parts_of(file, format, &mut |part| {
                stop.check()?;
                reader.see(part.format, &part.body)
            })?;
        }
        parts_of(file, format, &mut |part| {
            reader.take(part.format, &part.body, sink)
        })?;
    }
    reader.finish(sink)
}

pub(crate) fn unreadable(error: FileError) -> Problem {
    let title = format!("{} can't be read", error.path.display());
    Problem::user("unreadable-file", title).detail(error)
}

fn array_too_large() -> Problem {
    Problem::user(
        "body-too-large",
        "a JSON array is read as a whole, and this one is too large",
    )
    .detail(format!("it has more than {WHOLE_BYTES_MAX} bytes"))
    .hint("write NDJSON: one object per line")
}

/// The same of NDJSON that is in memory.
pub fn parts_of_lines(
    text: &[u8],
    sink: &mut dyn FnMut(Part) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let read = |at: u64, into: &mut [u8]| {
        let from = text.get(usize::try_from(at).unwrap_or(usize::MAX)..);
        let from = from.and_then(|from| from.get(..into.len()));
        let from =
            from.ok_or_else(|| Problem::internal("parts", "a text is shorter than it was"))?;
        into.copy_from_slice(from);
        Ok(())
    };
    lines(&read, text.len() as u64, BodyFormat::Ndjson, sink)
}

/// Fills a buffer from a place in a text on.
type ReadAt<'a> = dyn Fn(u64, &mut [u8]) -> Result<(), Problem> + 'a;

/// Whole lines; each part of a CSV file begins with its header.
fn lines(
    read: &ReadAt<'_>,
    length: u64,
    format: BodyFormat,
    sink: &mut dyn FnMut(Part) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let (mut at, mut body) = (0, Vec::new());
    // Of a CSV file; what is before it in `body` has been looked through.
    let mut header: Option<Vec<u8>> = None;
    let mut wanted = PART_BYTES;
    loop {
        let room = usize::try_from(length - at).unwrap_or(usize::MAX);
        let (start, more) = (body.len(), wanted.saturating_sub(body.len()).min(room));
        body.resize(start + more, 0);
        read(at, &mut body[start..])?;
        at += more as u64;
        let ends = match format {
            BodyFormat::Csv => record_ends(&body),
            _ => line_ends(&body),
        };
        let rest_fits = at == length && ends.count < PART_LINES_MAX;
        let end = if rest_fits { body.len() } else { ends.last };
        // A header alone is no part.
        if end <= header.as_ref().map_or(0, Vec::len) && !rest_fits {
            if body.len() > LINE_BYTES_MAX {
                return Err(too_long(at));
            }
            wanted = body.len() + PART_BYTES;
            continue;
        }
        wanted = PART_BYTES;
        let rest = body.split_off(end);
        let next = match (format, &header) {
            (BodyFormat::Csv, None) => {
                let found = body[..ends.first.min(body.len())].to_vec();
                header.insert(found).clone()
            }
            (_, Some(header)) => header.clone(),
            _ => Vec::new(),
        };
        sink(Part {
            format,
            body: std::mem::replace(&mut body, next),
            read_bytes: at,
        })?;
        if at == length && rest.is_empty() {
            return Ok(());
        }
        body.extend(rest);
    }
}

fn too_long(at: u64) -> Problem {
    Problem::user("row-too-large", "a line doesn't end")
        .detail(format!(
            "none ends in the {LINE_BYTES_MAX} bytes before byte {at}"
        ))
        .hint("in CSV a quote may be open; a row may have 1 MiB")
}

/// Where the first of some lines ends, and the last, and how many there are, of a part at most.
#[derive(Debug, Default, PartialEq)]
struct Ends {
    first: usize,
    last: usize,
    count: usize,
}

impl Ends {
    /// Notes that a line ends; whether there may be another.
    fn note(&mut self, end: usize) -> bool {
        self.first = if self.count == 0 { end } else { self.first };
        self.last = end;
        self.count += 1;
        self.count < PART_LINES_MAX
    }
}

fn line_ends(text: &[u8]) -> Ends {
    let mut ends = Ends::default();
    for (place, byte) in text.iter().enumerate() {
        if *byte == b'\n' && !ends.note(place + 1) {
            break;
        }
    }
    ends
}

/// The same of records of CSV; read as the decoder does, which goes on after a broken record at the
/// next line.
fn record_ends(text: &[u8]) -> Ends {
    #[derive(PartialEq)]
    enum At {
        CellStart,
        Plain,
        Quoted,
        /// After a quote that ends a cell, or is the first of two.
        Quote,
        Broken,
    }
    let (mut ends, mut state) = (Ends::default(), At::CellStart);
    for (place, byte) in text.iter().enumerate() {
        state = match (state, byte) {
            (At::CellStart, b'"') | (At::Quote, b'"') => At::Quoted,
            (At::Quoted, b'"') => At::Quote,
            (At::Quoted, _) => At::Quoted,
            (_, b'\n') => {
                if !ends.note(place + 1) {
                    return ends;
                }
                At::CellStart
            }
            (At::Broken, _) | (At::Plain, b'"') => At::Broken,
            (_, b',') => At::CellStart,
            (At::Quote, b'\r') => At::Quote,
            (At::Quote, _) => At::Broken,
            (At::CellStart | At::Plain, _) => At::Plain,
        };
    }
    ends
}

/// A file that is read where the reader of Parquet asks.
struct Chunks {
    file: Arc<dyn ReadFile>,
    length: u64,
}

/// A file's bytes from a place on.
pub struct Following {
    file: Arc<dyn ReadFile>,
    at: u64,
    length: u64,
}

impl Following {
    /// All bytes of a file.
    pub fn open(env: &Env, path: &Path) -> Result<Self, Problem> {
        let file: Arc<dyn ReadFile> = Arc::from(env.files.open_read(path).map_err(unreadable)?);
        let length = file.length().map_err(unreadable)?;
        Ok(Self {
            file,
            at: 0,
            length,
        })
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Chunks {
    type T = BufReader<Following>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(BufReader::new(Following {
            file: self.file.clone(),
            at: start,
            length: self.length,
        }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(ParquetError::EOF("the file ends before its pages".into()));
        }
        let mut bytes = vec![0; length];
        let read = self.file.read_at(start, &mut bytes);
        read.map_err(|e| ParquetError::General(e.to_string()))?;
        Ok(bytes.into())
    }
}

impl Read for Following {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        let read = self.file.read_at(self.at, &mut buffer[..count]);
        read.map_err(|e| std::io::Error::other(e.to_string()))?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The batches of a Parquet file as Arrow streams.
fn parquet(
    file: Arc<dyn ReadFile>,
    length: u64,
    sink: &mut dyn FnMut(Part) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut rows = 0;
    let (total, found) = parquet_batches(Chunks { file, length })?;
    let total = total.max(1);
    for batch in found {
        small(batch?, &mut |batch| {
            rows += batch.num_rows() as u64;
            let read = u128::from(length) * u128::from(rows.min(total)) / u128::from(total);
            columns(&batch, read as u64, sink)
        })?;
    }
    Ok(())
}

/// The batches of an Arrow stream or file, each as one.
fn arrow(
    read: &ReadAt<'_>,
    length: u64,
    sink: &mut dyn FnMut(Part) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let at = Cell::new(0);
    let read = |from: u64, into: &mut [u8]| {
        at.set(from + into.len() as u64);
        read(from, into)
    };
    let next = || -> Result<Option<Buffer>, Problem> {
        let left = usize::try_from(length - at.get()).unwrap_or(usize::MAX);
        let mut piece = vec![0; left.min(PIECE_BYTES)];
        read(at.get(), &mut piece)?;
        Ok((!piece.is_empty()).then(|| piece.into()))
    };
    let batches = match is_arrow_file(length, read)? {
        true => file_batches(length, WHOLE_BYTES_MAX, read)?,
        false => {
            at.set(0);
            stream_batches(WHOLE_BYTES_MAX, next)
        }
    };
    for batch in batches {
        small(batch?, &mut |batch| columns(&batch, at.get(), sink))?;
    }
    Ok(())
}

fn columns(
    batch: &RecordBatch,
    read_bytes: u64,
    sink: &mut dyn FnMut(Part) -> Result<(), Problem>,
) -> Result<(), Problem> {
    sink(Part {
        format: BodyFormat::ArrowStream,
        body: stream(batch)?,
        read_bytes,
    })
}

/// A batch in halves, until each takes little memory.
fn small(
    batch: RecordBatch,
    sink: &mut dyn FnMut(RecordBatch) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let rows = batch.num_rows();
    if rows < 2 || batch_bytes(&batch) <= PART_BYTES {
        return sink(batch);
    }
    let half = |from: usize, rows: usize| compact(&batch.slice(from, rows));
    let (first, second) = (half(0, rows / 2)?, half(rows / 2, rows - rows / 2)?);
    // What rows share, such as long dictionaries, doesn't become less.
    if batch_bytes(&first) + batch_bytes(&second) > batch_bytes(&batch) * 3 / 2 {
        return sink(batch);
    }
    small(first, sink)?;
    small(second, sink)
}

fn stream(batch: &RecordBatch) -> Result<Vec<u8>, Problem> {
    let failed = |e: arrow::error::ArrowError| {
        Problem::internal("arrow", "columns can't be written as a stream").detail(e)
    };
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).map_err(failed)?;
    writer.write(batch).map_err(failed)?;
    writer.finish().map_err(failed)?;
    drop(writer);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray};
    use headwater_batch::HeldFile;
    use headwater_schema::decode::read_record_batches;

    use super::*;

    /// The parts of a text, as whole texts.
    fn texts_of(text: &str, format: BodyFormat) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let env = Env::real();
        env.files
            .write_atomic(&path, text.as_bytes())
            .expect("writes");
        let mut parts = Vec::new();
        read_parts(&env, &path, format, &mut |part| {
            parts.push(String::from_utf8(part.body).expect("whole characters"));
            Ok(())
        })
        .expect("reads");
        parts
    }

    #[test]
    fn an_arrow_stream_comes_in_parts_of_its_rows() {
        use arrow::array::{
            ArrayAccessor, DictionaryArray, ListBuilder, StringArray, StringBuilder,
            StringViewArray,
        };
        use arrow::datatypes::Int32Type;
        let texts = |from: usize| (from..from + 60_000).map(|i| Some(format!("{i:>90}")));
        let batch = |from: usize| {
            let plain: StringArray = texts(from).collect();
            let views: StringViewArray = texts(from).collect();
            let lists = texts(from).map(|text| Some([text]));
            let mut builder = ListBuilder::new(StringBuilder::new());
            builder.extend(lists);
            let named: DictionaryArray<Int32Type> = plain.iter().collect();
            let columns: [(&str, ArrayRef); 4] = [
                ("plain", Arc::new(plain)),
                ("views", Arc::new(views)),
                ("lists", Arc::new(builder.finish())),
                ("named", Arc::new(named)),
            ];
            RecordBatch::try_from_iter(columns).expect("columns")
        };
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::try_new(&mut bytes, &batch(0).schema()).expect("a writer");
        for from in [0, 60_000] {
            writer.write(&batch(from)).expect("written");
        }
        writer.finish().expect("written");
        drop(writer);
        let (mut rows, mut parts) = (0, 0);
        let mut sink = |part: Part| {
            assert!(part.body.len() < 2 * PART_BYTES, "{}", part.body.len());
            for batch in read_record_batches(part.format, &part.body)? {
                let batch = batch?;
                let (plain, views) = (batch.column(0).as_string::<i32>(), batch.column(1));
                let (lists, named) = (batch.column(2).as_list::<i32>(), batch.column(3));
                let named = named.as_dictionary::<Int32Type>();
                let named = named.downcast_dict::<StringArray>().expect("texts");
                for row in 0..batch.num_rows() {
                    let text = format!("{:>90}", rows + row);
                    assert_eq!(plain.value(row), text);
                    assert_eq!(views.as_string_view().value(row), text);
                    assert_eq!(lists.value(row).as_string::<i32>().value(0), text);
                    assert_eq!(named.value(row), text);
                }
                rows += batch.num_rows();
            }
            parts += 1;
            Ok(())
        };
        let file = |bytes: &[u8]| -> Arc<dyn ReadFile> { Arc::new(HeldFile(bytes.to_vec())) };
        parts_of(&file(&bytes), BodyFormat::ArrowStream, &mut sink).expect("read");
        assert!(
            (rows, parts > 4) == (120_000, true),
            "{rows} rows, {parts} parts"
        );
        let cut = &bytes[..bytes.len() - 100];
        let cut = parts_of(&file(cut), BodyFormat::ArrowStream, &mut |_| Ok(()));
        assert_eq!(cut.expect_err("it has no end").code, "bad-columns");
    }

    #[test]
    fn lines_stay_whole_and_every_part_of_csv_has_the_header() {
        let long = "x\ny\"\"".repeat(700_000);
        let rows = [
            format!("1,\"{long}\"\n"),
            format!("2,\"{long}\"\n"),
            "3,plain\n".into(),
            "4,\"a\"".into(),
        ];
        let parts = texts_of(&format!("id,text\n{}", rows.concat()), BodyFormat::Csv);
        assert!(parts.len() > 1, "{} parts", parts.len());
        let joined = parts
            .iter()
            .map(|p| p.strip_prefix("id,text\n").expect("the header"));
        assert_eq!(joined.collect::<String>(), rows.concat());
        let lines = "{\"a\":1}\n".repeat(1_200_000) + "{\"a\":2}";
        let parts = texts_of(&lines, BodyFormat::Ndjson);
        assert!(parts.len() > 1 && parts.concat() == lines);
        assert!(parts[..parts.len() - 1].iter().all(|p| p.ends_with("}\n")));
        assert_eq!(texts_of("", BodyFormat::Ndjson), [""]);
        let ends = record_ends(b"a\"b,\"c\n1,\"\n\"\n2,\"open\n");
        assert_eq!((ends.first, ends.last, ends.count), (7, 13, 2));
        let short = "a\n".repeat(2 * PART_LINES_MAX + 1);
        let parts = texts_of(&short, BodyFormat::Csv);
        let rows: Vec<usize> = parts.iter().map(|p| p.lines().count() - 1).collect();
        assert_eq!(rows, [PART_LINES_MAX - 1, PART_LINES_MAX - 1, 2]);
    }
}

//! A bundle opened by a process of its own, as a device does: the example in C over the stripped library is started, opens
//! the bundle, answers one prediction by entities and ends.
//!
//! The model and its features are those of `serving`; what is answered is held, bit for bit, to what the server answered at
//! the same moment. Time and memory are measured in different runs, since memory is read while the process waits.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use headwater::Config;
use headwater_api::backend::{BundleRequest, EntityRequest, KeyValue};
use headwater_schema::{Problem, Value};
use serde_json::{Value as Json, json};

use crate::client::Client;
use crate::machine::percentile;
use crate::server::ServerProcess;
use crate::serving::{ask, entity, prepare, verdict};
use crate::{failed, shop};

/// Runs that time is taken of, and runs that memory is read in.
const RUNS: usize = 21;
const MEMORY_RUNS: usize = 5;
/// Which entities are asked for.
const ASKED: usize = 1;
const MODEL_NAME: &str = "scored";
/// How long a process may take to do what it is watched for.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// A process that has had no core for so long waits for more requests.
const QUIET: Duration = Duration::from_millis(200);

const BAR_MS: f64 = 100.0;
const BAR_RESIDENT_BYTES: u64 = 64 << 20;
const BAR_LIBRARY_BYTES: u64 = 20_000_000;

/// One run from its start to its end, in milliseconds.
struct Run {
    processor: f64,
    wall: f64,
}

/// Prints sizes, times and memory, and fails where an answer isn't the server's.
pub fn measure(library: &Path, python: &str) -> Result<(), Problem> {
    let library = library.canonicalize().map_err(|e| {
        failed(format!("{}: {e}", library.display()))
            .hint("Build it as docs/edge.md says, and give its path as `--library`")
    })?;
    let folder = shop::folder()?;
    let folder = folder.path();
    prepare(folder, python)?;
    let bundle = folder.join("scored.bundle");
    bundle_of(folder, &bundle)?;
    let (asked, wanted) = served(folder)?;
    let program = compile(&library, folder)?;
    let library_bytes = bytes_of(&library)?;
    println!(
        "the library {:.1} MB; a bundle of {:.2} MiB with a model of {:.2} MiB",
        library_bytes as f64 / 1e6,
        bytes_of(&bundle)? as f64 / (1 << 20) as f64,
        bytes_of(&folder.join("model.txt"))? as f64 / (1 << 20) as f64
    );
    verdict(
        "the library ≤ 20 MB, stripped",
        library_bytes <= BAR_LIBRARY_BYTES,
    );
    let line = asked.to_string() + "\n";
    let mut resident = 0;
    for _ in 0..MEMORY_RUNS {
        resident = resident.max(memory_of(&program, &bundle, &line, wanted)?);
    }
    let runs = (0..RUNS).map(|_| time_of(&program, &bundle, &line, wanted));
    let runs = runs.collect::<Result<Vec<_>, _>>()?;
    println!("{RUNS} answers of {RUNS} runs are the server's, bit for bit");
    tell(&runs, resident);
    Ok(())
}

fn tell(runs: &[Run], resident: u64) {
    let of = |time: fn(&Run) -> f64| {
        let mut times: Vec<f64> = runs.iter().map(time).collect();
        times.sort_by(f64::total_cmp);
        (percentile(&times, 0.5), percentile(&times, 1.0))
    };
    for (what, (middle, most)) in [
        (
            "processor time, start to end",
            of(|run: &Run| run.processor),
        ),
        ("the same by the clock", of(|run: &Run| run.wall)),
    ] {
        println!("{what}: middle {middle:.1} ms, most {most:.1} ms");
        verdict("≤ 100 ms", most <= BAR_MS);
    }
    println!(
        "resident at most {:.1} MiB, of {MEMORY_RUNS} runs",
        resident as f64 / (1 << 20) as f64
    );
    verdict("≤ 64 MiB", resident <= BAR_RESIDENT_BYTES);
}

/// The model with what is known of the entities that are asked for.
fn bundle_of(folder: &Path, file: &Path) -> Result<(), Problem> {
    let engine = shop::open(folder, &Config::named("bench"))?;
    let named = entity(ASKED);
    let keys = named.as_object().into_iter().flatten();
    let keys = keys.filter_map(|(name, key)| {
        let key = KeyValue::Scalar(Value::string(key.as_str()?));
        Some((name.clone(), key))
    });
    let keys: EntityRequest = keys.collect();
    let bytes = engine.bundle(&BundleRequest {
        model: MODEL_NAME.to_owned(),
        version: None,
        feature_set: None,
        entities: vec![keys],
        all_history: false,
    })?;
    std::fs::write(file, bytes).map_err(failed)
}

/// What the server answers, and what to ask for the same moment elsewhere.
fn served(folder: &Path) -> Result<(Json, u64), Problem> {
    let server = ServerProcess::start(folder, None)?;
    let mut client = Client::connect(server.address)?;
    let path = format!("/v1/models/{MODEL_NAME}/predict");
    let answer = ask(&mut client, &path, &json!({"entities": [entity(ASKED)]}))?;
    let output = answer["outputs"][0].as_object();
    let output = output.and_then(|o| o.values().next()?.as_f64());
    match output {
        Some(output) if answer["degraded"] == json!(false) => {
            let asked = json!({"entities": [entity(ASKED)], "as_of": answer["as_of"]});
            Ok((asked, output.to_bits()))
        }
        _ => Err(failed(answer)),
    }
}

/// The example in C, linked with the library where it lies.
fn compile(library: &Path, folder: &Path) -> Result<PathBuf, Problem> {
    let edge = Path::new(env!("CARGO_MANIFEST_DIR")).join("../edge-c");
    let (program, beside) = (folder.join("predict"), library.parent());
    let beside = beside.ok_or_else(|| failed("the library lies nowhere"))?;
    let compiled = Command::new("cc")
        .args(["-O2", "-I"])
        .arg(edge.join("include"))
        .arg(edge.join("examples/predict.c"))
        .arg(library)
        .arg(format!("-Wl,-rpath,{}", beside.display()))
        .arg("-o")
        .arg(&program)
        .status()
        .map_err(|e| failed(format!("cc: {e}")))?;
    match compiled.success() {
        true => Ok(program),
        false => Err(failed("the example in C doesn't compile")),
    }
}

fn bytes_of(file: &Path) -> Result<u64, Problem> {
    Ok(std::fs::metadata(file).map_err(failed)?.len())
}

/// A process of the example; killed when it is dropped.
struct Example {
    child: Child,
    input: Option<ChildStdin>,
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Example {
    /// Starts it, and sends its only request. Its input stays open.
    fn start(program: &Path, bundle: &Path, line: &str) -> Result<Self, Problem> {
        let mut child = Command::new(program)
            .arg(bundle)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let input = child.stdin.take();
        let mut example = Self { child, input };
        let input = example.input.as_mut();
        let input = input.ok_or_else(|| failed("the example hears nothing"))?;
        input.write_all(line.as_bytes()).map_err(failed)?;
        Ok(example)
    }

    /// Ends its input, and reads what it has printed by its end. Its output is closed after its memory has been given back.
    fn end(&mut self) -> Result<String, Problem> {
        drop(self.input.take());
        let output = self.child.stdout.as_mut();
        let output = output.ok_or_else(|| failed("the example is mute"))?;
        let mut text = String::new();
        output.read_to_string(&mut text).map_err(failed)?;
        Ok(text)
    }

    /// Reads one of the files that the system has of it.
    fn told(&self, file: &str) -> Result<String, Problem> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).map_err(failed)
    }

    /// `R` while it runs, `S` while it waits, `Z` once it has ended.
    fn state(&self) -> Result<char, Problem> {
        let stat = self.told("stat")?;
        let behind_name = stat.rsplit_once(") ");
        let state = behind_name.and_then(|(_, rest)| rest.chars().next());
        state.ok_or_else(|| failed("a process has no state"))
    }

    /// Nanoseconds that its first thread has had a core.
    fn nanos(&self) -> Result<u64, Problem> {
        let had = self.told("schedstat")?;
        let nanos = had.split_whitespace().next().and_then(|n| n.parse().ok());
        nanos.ok_or_else(|| failed("no times of processes"))
    }
}

/// Time of a run whose input ends at once.
fn time_of(program: &Path, bundle: &Path, line: &str, wanted: u64) -> Result<Run, Problem> {
    let start = Instant::now();
    let mut example = Example::start(program, bundle, line)?;
    let text = example.end()?;
    let wall = start.elapsed().as_secs_f64() * 1e3;
    // Once it has ended, and until it is waited for, the system still tells how long it had a core, exactly.
    while example.state()? != 'Z' {
        if start.elapsed() > WAIT_MAX {
            return Err(failed("the example doesn't end"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let processor = example.nanos()? as f64 / 1e6;
    check(&mut example, &text, wanted)?;
    Ok(Run { processor, wall })
}

/// The most memory that a run had resident, in bytes, read when it has answered and waits for another request. What is told
/// of a process that has ended counts the pages of the one that started it, too, up to where it became another program.
fn memory_of(program: &Path, bundle: &Path, line: &str, wanted: u64) -> Result<u64, Problem> {
    let start = Instant::now();
    let mut example = Example::start(program, bundle, line)?;
    let (mut since, mut had) = (Instant::now(), example.nanos()?);
    while since.elapsed() < QUIET {
        if start.elapsed() > WAIT_MAX {
            return Err(failed("the example doesn't come to rest"));
        }
        std::thread::sleep(LOOK_EVERY);
        let now = example.nanos()?;
        if now != had || example.state()? != 'S' {
            (since, had) = (Instant::now(), now);
        }
    }
    let status = example.told("status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    // The processor's time is read of the first thread: with others it would be too little.
    if field("Threads:") != Some(1) {
        return Err(failed("the example has several threads"));
    }
    let most = field("VmHWM:").ok_or_else(|| failed("no memory of processes"))?;
    let text = example.end()?;
    check(&mut example, &text, wanted)?;
    Ok(most * 1024)
}

/// Waits for the end of a run, and holds it to what it should have answered.
fn check(example: &mut Example, text: &str, wanted: u64) -> Result<(), Problem> {
    let status = example.child.wait().map_err(failed)?;
    let answer = exact(text.trim_end()).map(f64::to_bits);
    match status.success() && answer == Some(wanted) {
        true => Ok(()),
        false => Err(failed(format!(
            "{status}: {text:?} isn't {}, which the server answered",
            f64::from_bits(wanted)
        ))),
    }
}

/// A number as C prints it with `%a`, which is exact. None where it isn't one, or has more digits than a double.
fn exact(text: &str) -> Option<f64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1.0, text),
        None => (1.0, text),
    };
    let (digits, exponent) = text.strip_prefix("0x")?.split_once('p')?;
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let mantissa = u64::from_str_radix(&format!("{whole}{part}"), 16).ok()?;
    let places = i32::try_from(part.len()).ok()? * 4;
    let exponent = exponent.parse::<i32>().ok()?.checked_sub(places)?;
    (mantissa < (1 << 53)).then(|| sign * mantissa as f64 * 2_f64.powi(exponent))
}

#[cfg(test)]
mod tests {
    use super::exact;

    #[test]
    fn what_c_prints_is_read_back_to_the_same_bits() {
        for (text, number) in [
            ("0x1p+0", 1.0),
            ("0x0p+0", 0.0),
            ("-0x1.8p+1", -3.0),
            ("0x1.999999999999ap-4", 0.1),
            ("0x1.fffffffffffffp+1023", f64::MAX),
        ] {
            let read = exact(text).expect("a number");
            assert_eq!(read.to_bits(), f64::to_bits(number), "{text}");
        }
        assert_eq!(exact("nan"), None);
        assert_eq!(exact(""), None);
    }
}

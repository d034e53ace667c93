//! Vectors over the Open Inference Protocol, REST and gRPC, beside MLServer.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use headwater_models::Predictor;
use headwater_schema::Problem;
use serde_json::{Value as Json, json};

use super::{FEATURES, REQUESTS, ask, entities, numbers, output, post, script, verdict};
use crate::client::{Client, each, each_connection};
use crate::failed;
use crate::grpc::GrpcClient;
use crate::machine::spread;
use crate::server::ServerProcess;

/// Connections, each with one request under way.
const CONNECTIONS: usize = 8;
const METHOD: &str = "/inference.GRPCInferenceService/ModelInfer";

/// MLServer, until it is dropped.
struct Peer {
    child: Child,
    told: Json,
}

impl Peer {
    fn start(python: &str, folder: &Path) -> Result<Self, Problem> {
        let mut command = script(python, "mlserver", folder);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().map_err(failed)?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output)
                .read_line(&mut line)
                .map_err(failed)?;
        }
        let told = serde_json::from_str(&line).map_err(|_| failed("MLServer didn't start"))?;
        Ok(Self { child, told })
    }

    fn address(&self, of: &str) -> SocketAddr {
        let port = self.told[of].as_u64().unwrap_or_default();
        SocketAddr::from(([127, 0, 0, 1], port as u16))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The end of its input is the script's sign to end MLServer.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Both servers one after the other under the same load.
pub fn measure(
    server: &ServerProcess,
    bound: Duration,
    folder: &Path,
    python: &str,
    model: &dyn Predictor,
) -> Result<(), Problem> {
    let mut client = Client::connect(server.address)?;
    let read = json!({"feature_set": "all", "entities": entities(0, REQUESTS)});
    let mut rows = numbers(&ask(&mut client, "/v1/features", &read)?)?;
    // MLServer takes no nulls.
    let all = rows.iter_mut().flatten();
    all.filter(|v| v.is_nan()).for_each(|v| *v = 0.0);
    let bytes: Vec<u8> = rows
        .iter()
        .flatten()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    std::fs::write(folder.join("vectors.f64"), bytes).map_err(failed)?;
    let wanted = rows.iter().map(|row| output(model, row));
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    let peer = Peer::start(python, folder)?;
    let name = peer.told["peer"].as_str().unwrap_or_default();
    let messages = messages(&std::fs::read(folder.join("requests.bin")).map_err(failed)?);
    let body = |row: &Vec<f64>| json!({"inputs": [{"name": "x", "shape": [1, FEATURES], "datatype": "FP64", "data": row}]});
    let path = "/v2/models/scored/infer";
    let requests: Vec<_> = rows.iter().map(|row| post(path, &body(row))).collect();
    for (what, bar, ours, theirs) in [
        ("REST", 10.0, server.address, peer.address("http")),
        ("gRPC", 5.0, server.grpc, peer.address("grpc")),
    ] {
        let run = |address| match what {
            "REST" => rest(address, &requests, &wanted, bound),
            _ => grpc(address, &messages, &wanted, bound),
        };
        let mut rates = [0.0; 2];
        for (place, (who, address)) in [("Headwater", ours), (name, theirs)].iter().enumerate() {
            let (rate, mut times) = run(*address)?;
            rates[place] = rate;
            println!(
                "vectors over {what}, {CONNECTIONS} connections, {who}: {rate:.0}/s; {}",
                spread(&mut times)
            );
        }
        let times = rates[0] / rates[1];
        verdict(&format!("≥ {bar} ×, {times:.1} ×"), times >= bar);
    }
    Ok(())
}

fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (message, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        messages.push(message.to_vec());
        bytes = rest;
    }
    messages
}

/// Whether it is that number, but for the last bits of a link function.
fn close(said: f64, wanted: f64) -> bool {
    (said - wanted).abs() <= 1e-12 * wanted.abs()
}

/// Requests a second, and their times in milliseconds.
type Rate = (f64, Vec<f64>);

fn rest(
    address: SocketAddr,
    requests: &[Vec<u8>],
    wanted: &[f64],
    bound: Duration,
) -> Result<Rate, Problem> {
    let mut client = Client::connect(address)?;
    for (request, wanted) in requests.iter().zip(wanted) {
        let answer: Json = serde_json::from_slice(client.call(request)?).map_err(failed)?;
        let data = &answer["outputs"][0]["data"];
        let said = data[0].as_f64().or(data[0][0].as_f64());
        if !said.is_some_and(|said| close(said, *wanted)) {
            return Err(failed(format!("{answer} isn't {wanted}")));
        }
    }
    let start = Instant::now();
    let times = each_connection(address, CONNECTIONS, |client| {
        closed(requests, start, bound, &mut |r| client.call(r).map(drop))
    })?;
    Ok(rate(times, start))
}

fn grpc(
    address: SocketAddr,
    requests: &[Vec<u8>],
    wanted: &[f64],
    bound: Duration,
) -> Result<Rate, Problem> {
    let mut client = GrpcClient::connect(address, METHOD)?;
    for (request, wanted) in requests.iter().zip(wanted) {
        // The output's eight bytes lie somewhere in the message.
        let answer = client.call(request)?.windows(8);
        if !answer
            .filter_map(|b| b.try_into().ok())
            .any(|b| close(f64::from_le_bytes(b), *wanted))
        {
            return Err(failed(format!("{wanted} isn't in the answer")));
        }
    }
    let start = Instant::now();
    let times = each(CONNECTIONS, || {
        let mut client = GrpcClient::connect(address, METHOD)?;
        closed(requests, start, bound, &mut |r| client.call(r).map(drop))
    })?;
    Ok(rate(times, start))
}

/// One request after another; what each took, in milliseconds.
fn closed(
    requests: &[Vec<u8>],
    start: Instant,
    bound: Duration,
    call: &mut dyn FnMut(&[u8]) -> Result<(), Problem>,
) -> Result<Vec<f64>, Problem> {
    let mut times = Vec::new();
    while start.elapsed() < bound {
        let sent = Instant::now();
        call(&requests[times.len() % requests.len()])?;
        times.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

fn rate(times: Vec<Vec<f64>>, start: Instant) -> Rate {
    let seconds = start.elapsed().as_secs_f64();
    let times: Vec<f64> = times.into_iter().flatten().collect();
    (times.len() as f64 / seconds, times)
}

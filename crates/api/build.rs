//! Makes Rust of the protobufs, without a `protoc` on the machine.

use std::error::Error;

/// The files that hold services and messages of their own.
const FILES: [&str; 5] = [
    "headwater/v1/headwater.proto",
    "feast/types/Value.proto",
    "feast/serving/ServingService.proto",
    "inference/inference.proto",
    "google/rpc/status.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .compile_fds(files)?;
    Ok(())
}

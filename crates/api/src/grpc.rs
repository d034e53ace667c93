//! gRPC: Headwater's own services, Feast's serving service, and the Open Inference Protocol.
//!
//! The protobufs lie in `proto/`; what is served means what the HTTP calls mean.

mod error;
mod facts;
mod feast;
mod features;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod inference;
mod inference_stream;
mod inference_told;
mod models;
mod values;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use tonic::codec::CompressionEncoding::{Deflate, Gzip};
use tower_http::catch_panic::CatchPanicLayer;

use crate::guard::guard;
use crate::server::{Shared, nothing_here, panicked};
use proto::feast::serving::serving_service_server::ServingServiceServer;
use proto::headwater::facts_server::FactsServer;
use proto::headwater::features_server::FeaturesServer;
use proto::headwater::models_server::ModelsServer;
use proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;

/// What the protobufs define.
#[allow(clippy::all, missing_docs)]
pub mod proto {
    /// Headwater's own services.
    pub mod headwater {
        tonic::include_proto!("headwater.v1");
    }
    /// Feast's.
    pub mod feast {
        pub mod serving {
            tonic::include_proto!("feast.serving");
        }
        pub mod types {
            tonic::include_proto!("feast.types");
        }
    }
    /// The Open Inference Protocol's.
    pub mod inference {
        tonic::include_proto!("inference");
    }
    /// The details of errors.
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

/// The protobufs by their paths.
pub const PROTOS: [(&str, &str); 5] = [
    (
        "headwater/v1/headwater.proto",
        include_str!("../proto/headwater/v1/headwater.proto"),
    ),
    (
        "feast/types/Value.proto",
        include_str!("../proto/feast/types/Value.proto"),
    ),
    (
        "feast/serving/ServingService.proto",
        include_str!("../proto/feast/serving/ServingService.proto"),
    ),
    (
        "inference/inference.proto",
        include_str!("../proto/inference/inference.proto"),
    ),
    (
        "google/rpc/status.proto",
        include_str!("../proto/google/rpc/status.proto"),
    ),
];

/// The calls of `inference.GRPCInferenceService`.
const INFERENCE: [&str; 12] = [
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelStreamInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
];

/// Every service, behind the same door as HTTP; what is refused there is refused in gRPC's words. Requests may be
/// compressed, and the limit of a body holds before and after unpacking. Answers aren't: some clients say that they
/// read gzip without being asked, and a compressed answer of a few numbers is later and no smaller.
pub(crate) fn router(shared: Shared) -> Router {
    let bytes_max = shared.limits.body_bytes_max;
    let facts = FactsServer::new(facts::Service(shared.clone()));
    let facts = facts
        .max_decoding_message_size(bytes_max)
        .accept_compressed(Gzip)
        .accept_compressed(Deflate);
    let features = FeaturesServer::new(features::Service(shared.clone()))
        .max_decoding_message_size(bytes_max)
        .accept_compressed(Gzip)
        .accept_compressed(Deflate)
        .max_encoding_message_size(usize::MAX);
    let models = ModelsServer::new(models::Service(shared.clone()))
        .max_decoding_message_size(bytes_max)
        .accept_compressed(Gzip)
        .accept_compressed(Deflate)
        .max_encoding_message_size(usize::MAX);
    let serving = ServingServiceServer::new(feast::Service(shared.clone()))
        .max_decoding_message_size(bytes_max)
        .accept_compressed(Gzip)
        .accept_compressed(Deflate)
        .max_encoding_message_size(usize::MAX);
    let inference = GrpcInferenceServiceServer::new(inference::Service(shared.clone()))
        .max_decoding_message_size(bytes_max)
        .accept_compressed(Gzip)
        .accept_compressed(Deflate)
        .max_encoding_message_size(usize::MAX);
    let mut router = Router::new();
    for call in INFERENCE {
        let path = format!("/inference.GRPCInferenceService/{call}");
        router = router.route_service(&path, inference.clone());
    }
    router
        .route_service("/headwater.v1.Facts/Append", facts.clone())
        .route_service("/headwater.v1.Facts/Retract", facts.clone())
        .route_service("/headwater.v1.Facts/Feed", facts)
        .route_service("/headwater.v1.Features/Read", features)
        .route_service("/headwater.v1.Models/Predict", models.clone())
        .route_service("/headwater.v1.Models/Outcomes", models)
        .route_service(
            "/feast.serving.ServingService/GetFeastServingInfo",
            serving.clone(),
        )
        .route_service("/feast.serving.ServingService/GetOnlineFeatures", serving)
        .fallback(nothing_here)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(shared, guard))
        .layer(from_fn(error::in_grpc))
}

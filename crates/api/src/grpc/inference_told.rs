//! What the Open Inference Protocol tells of models, as its messages have it.

use super::proto::inference as proto;
use crate::oip::model;

/// A model's configuration.
pub fn configuration(of: model::Config) -> proto::ModelConfig {
    let data_type = |of: &model::ConfigTensor| {
        let known = proto::DataType::from_str_name(of.data_type);
        known.unwrap_or_default().into()
    };
    let inputs = of.input.into_iter().map(|tensor| proto::ModelInput {
        data_type: data_type(&tensor),
        dims: tensor.dims.to_vec(),
        name: tensor.name,
    });
    let outputs = of.output.into_iter().map(|tensor| proto::ModelOutput {
        data_type: data_type(&tensor),
        dims: tensor.dims.to_vec(),
        name: tensor.name,
    });
    proto::ModelConfig {
        input: inputs.collect(),
        output: outputs.collect(),
        max_batch_size: i32::try_from(of.max_batch_size).unwrap_or(i32::MAX),
        name: of.name,
        platform: of.platform,
        backend: of.backend.to_owned(),
    }
}

/// What is counted of a version.
pub fn statistics(of: model::ModelStatistics) -> proto::ModelStatistics {
    let duration = |of: model::Duration| {
        Some(proto::StatisticDuration {
            count: of.count,
            ns: of.ns,
        })
    };
    let stats = of.inference_stats;
    proto::ModelStatistics {
        name: of.name,
        version: of.version,
        last_inference: of.last_inference,
        inference_count: of.inference_count,
        execution_count: of.execution_count,
        inference_stats: Some(proto::InferStatistics {
            success: duration(stats.success),
            fail: duration(stats.fail),
            queue: duration(stats.queue),
            compute_input: duration(stats.compute_input),
            compute_infer: duration(stats.compute_infer),
            compute_output: duration(stats.compute_output),
            cache_hit: duration(stats.cache_hit),
            cache_miss: duration(stats.cache_miss),
        }),
    }
}

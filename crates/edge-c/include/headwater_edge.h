/*
 * Headwater at the edge: a model and what is known of some entities, from one file, without a server.
 *
 * A bundle is made by `headwater bundle`. Here it is opened, asked for features and predictions (the same bits as the
 * server's), and told of facts that happen on this machine.
 *
 * Status. Every call that can fail answers HW_OK or what is to blame. Where it isn't HW_OK and `error` isn't NULL,
 * `*error` is a JSON object that says what went wrong and how to mend it: {"code", "title", "detail", "hint", "field",
 * "blame", "retry"}; programs match on "code". Otherwise `*error` is NULL.
 *
 * Memory. Texts that calls give (`*answer`, `*error`) are the caller's, to be given back by hw_edge_free, once. What the
 * caller passes stays the caller's and is not kept. Texts are UTF-8 and end with a zero.
 *
 * Threads. Any number of threads may use one handle at once; calls that add or retract facts wait for each other, and
 * a call that begins after one of them has returned sees its facts. hw_edge_close is the exception: no call may use
 * the handle then or later.
 *
 * A bug. Should a call answer HW_INTERNAL with the code "panic", the handle answers nothing more: close it.
 */
#ifndef HEADWATER_EDGE_H
#define HEADWATER_EDGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HW_OK 0       /* done */
#define HW_USER 1     /* something wrong was asked for */
#define HW_EXTERNAL 2 /* the bundle, the journal or the disk can't be used */
#define HW_INTERNAL 3 /* a bug of the library */

/* What hw_edge_abi of a library answers that fits this header. */
#define HW_EDGE_ABI 1

/* An opened bundle. */
typedef struct hw_edge hw_edge;

uint32_t hw_edge_abi(void);

/* Opens a bundle that lies in memory. Facts that it is told are gone with the handle. `bytes` may be freed afterwards. */
int hw_edge_open(const uint8_t *bytes, size_t length, hw_edge **out, char **error);

/*
 * Opens the bundle of a file. With a journal (a path; NULL for none) facts that were told before are there again, and
 * each to come is on the disk before it counts. A journal belongs to one bundle, and to one process at a time.
 */
int hw_edge_open_file(const char *path, const char *journal, hw_edge **out, char **error);

/* Closes a handle; nothing for NULL. */
void hw_edge_close(hw_edge *handle);

/* Gives a text back; nothing for NULL. */
void hw_edge_free(char *text);

/* {"model", "version", "sequence", "made_at", "inputs", "outputs", "entities", "local_facts", "repairs", ...} */
int hw_edge_about(const hw_edge *handle, char **answer, char **error);

/*
 * Features of the model's set. The request is {"entities": [{...}], "context": [{...}], "as_of": TIME}, as in
 * POST /v1/features: one object of entities per row; `context` only where the set asks for any; `as_of` is RFC 3339 or
 * microseconds since 1970, now by default. The answer is {"names": [...], "rows": [{"values": [...], "statuses": [...],
 * "event_times": [...]}], "as_of", "sequence", "local_facts", "not_bundled": [{"row", "entity"}]}.
 */
int hw_edge_features(const hw_edge *handle, const char *request, char **answer, char **error);

/*
 * Predictions for such a request: {"model", "version", "outputs": [{NAME: number or list}], ...}. With "explain": true in
 * it also "explanations": for each row, and each raw score of the model, {"inputs": {NAME: what it added}, "base"}.
 */
int hw_edge_predict(const hw_edge *handle, const char *request, char **answer, char **error);

/*
 * The same, answered in numbers: hw_edge_outputs of them for each row, in the order of "outputs" of hw_edge_about.
 * `*outputs_count` says how many there are, also where `outputs` has no room for them.
 */
int hw_edge_predict_numbers(const hw_edge *handle, const char *request, double *outputs, size_t outputs_max,
                            size_t *outputs_count, char **error);

/* How many numbers a row of the model's own inputs has, and the answer to one row. */
size_t hw_edge_inputs(const hw_edge *handle);
size_t hw_edge_outputs(const hw_edge *handle);

/*
 * Predictions for rows of the model's own inputs: `inputs` are `rows` times hw_edge_inputs numbers, in the order of
 * "inputs" of hw_edge_about, NaN where one is missing. Writes `rows` times hw_edge_outputs numbers. The two must not overlap.
 */
int hw_edge_predict_vectors(const hw_edge *handle, const double *inputs, size_t rows, double *outputs, size_t outputs_max,
                            char **error);

/*
 * Takes facts of a contract, a JSON array of objects as POST /v1/facts/CONTRACT takes them; with `revise` (not 0) one whose
 * id is known replaces that fact. The answer is {"accepted", "duplicates", "rejected": [{"row", "field", "reason"}]}.
 */
int hw_edge_add_facts(const hw_edge *handle, const char *contract, const char *rows, int revise, char **answer,
                      char **error);

/* Takes facts back, by a JSON array of their ids: {"retracted", "unknown": [...]}. */
int hw_edge_retract(const hw_edge *handle, const char *contract, const char *fact_ids, char **answer, char **error);

#ifdef __cplusplus
}
#endif

#endif

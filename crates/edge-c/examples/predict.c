/*
 * Asks a bundle for predictions, without a server.
 *
 *   predict BUNDLE < requests
 *   predict BUNDLE JOURNAL CONTRACT ROWS < requests     tells facts first
 *
 * Reads one request per line, as in {"entities": [{"plane": "N14228"}], "as_of": "2013-07-01T12:00:00Z"}, and prints the
 * outputs of its rows on one line, each as a hexadecimal float, which is exact. What is wrong goes to standard error.
 *
 *   cc -I crates/edge-c/include crates/edge-c/examples/predict.c -L target/edge -lheadwater_edge_c -o predict
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "headwater_edge.h"

#define LINE_MAX_BYTES (1 << 20)
#define OUTPUTS_MAX 4096

static int failed(const char *what, int status, char *error) {
    fprintf(stderr, "%s: status %d: %s\n", what, status, error ? error : "");
    hw_edge_free(error);
    return 1;
}

int main(int count, char **arguments) {
    if (count != 2 && count != 5) {
        fprintf(stderr, "usage: predict BUNDLE [JOURNAL CONTRACT ROWS] < requests\n");
        return 2;
    }
    if (hw_edge_abi() != HW_EDGE_ABI) {
        fprintf(stderr, "the library has other functions than its header\n");
        return 1;
    }
    hw_edge *edge = NULL;
    char *error = NULL;
    const char *journal = count == 5 ? arguments[2] : NULL;
    int status = hw_edge_open_file(arguments[1], journal, &edge, &error);
    if (status != HW_OK) {
        return failed("the bundle doesn't open", status, error);
    }
    if (count == 5) {
        char *answer = NULL;
        status = hw_edge_add_facts(edge, arguments[3], arguments[4], 0, &answer, &error);
        if (status != HW_OK) {
            hw_edge_close(edge);
            return failed("the facts aren't taken", status, error);
        }
        fprintf(stderr, "%s\n", answer);
        hw_edge_free(answer);
    }
    char *line = malloc(LINE_MAX_BYTES);
    double outputs[OUTPUTS_MAX];
    int wrong = line == NULL;
    while (line != NULL && fgets(line, LINE_MAX_BYTES, stdin) != NULL) {
        size_t numbers = 0;
        status = hw_edge_predict_numbers(edge, line, outputs, OUTPUTS_MAX, &numbers, &error);
        if (status != HW_OK) {
            wrong = failed("a request isn't answered", status, error);
            printf("\n");
            continue;
        }
        for (size_t i = 0; i < numbers; i++) {
            printf(i == 0 ? "%a" : " %a", outputs[i]);
        }
        printf("\n");
    }
    free(line);
    hw_edge_close(edge);
    return wrong;
}

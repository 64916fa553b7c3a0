// The backbone as a program of ExecuTorch's, features.pte beside the head: the same network as the C's, run by XNNPACK.
// Its answers are the same multiples of the embedding's scale, a step apart here and there.
#include "embedder.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/platform/platform.h>

using executorch::aten::ScalarType;
using executorch::extension::from_blob;
using executorch::extension::Module;
using executorch::runtime::Error;

extern "C" {
extern const char embedder_name[];
const char embedder_name[] = "executorch";
}

namespace {

// The one network of the program.
struct Network {
    std::unique_ptr<Module> module;
    nestling_head_header header;
    std::vector<int8_t> embedding; // [inputs]
};

Network network;

std::string beside(const char *head_path)
{
    const std::string path(head_path);
    const size_t slash = path.rfind('/');
    return (slash == std::string::npos ? std::string() : path.substr(0, slash + 1)) + "features.pte";
}

std::string hex(const uint8_t *bytes, size_t count)
{
    static const char digits[] = "0123456789abcdef";
    std::string text;
    for (size_t i = 0; i < count; i++) {
        text += digits[bytes[i] >> 4];
        text += digits[bytes[i] & 15];
    }
    return text;
}

// ExecuTorch also tells what it found out about the processor; only what went wrong is passed on.
void log_errors(et_timestamp_t, et_pal_log_level_t level, const char *, const char *, size_t, const char *message, size_t)
{
    if (level == kError || level == kFatal)
        std::fprintf(stderr, "ExecuTorch: %s\n", message);
}

int refused(char *said, uint32_t said_bytes, const std::string &why)
{
    std::snprintf(said, said_bytes, "%s", why.c_str());
    return 1;
}

} // namespace

// ExecuTorch has threads of its own.
int embedder_open(const char *head_path, const nestling_head_header *header, int32_t, char *said, uint32_t said_bytes)
{
    const std::string file = beside(head_path);
    const std::string hint = "\n  pack head and program together:  nestling pack my8.nest --runner executorch";
    executorch::runtime::register_pal(executorch::runtime::PalImpl::create(log_errors, __FILE__));
    auto module = std::make_unique<Module>(file);
    if (module->load() != Error::Ok)
        return refused(said, said_bytes, file + " is not there, or no whole ExecuTorch program." + hint);
    const auto about = module->execute("nestling"); // the JSON that nestling writes into each of its programs
    if (!about.ok() || about->empty() || !about->at(0).isString())
        return refused(said, said_bytes, file + " does not say which network it is." + hint);
    const auto text = about->at(0).toString();
    if (std::string(text.data(), text.size()).find("\"graph\": \"" + hex(header->graph, sizeof header->graph) + "\"") ==
        std::string::npos)
        return refused(said, said_bytes, std::string(head_path) + " is for another network than " + file + "." + hint);
    network.module = std::move(module);
    network.header = *header;
    network.embedding.assign(header->inputs, 0);
    return 0;
}

const char *embedder_isa(void)
{
    return "";
}

// The program gives real numbers, each embedding_scale * (q - embedding_zero) for a whole q.
const int8_t *embedder_run(const uint8_t *image)
{
    const nestling_head_header &h = network.header;
    const auto sides = {1, (int)h.image_height, (int)h.image_width, (int)h.image_channels};
    auto input = from_blob(const_cast<uint8_t *>(image), sides, ScalarType::Byte);
    const auto answers = network.module->forward(input);
    if (!answers.ok() || answers->empty() || !answers->at(0).isTensor())
        return nullptr;
    const auto &real = answers->at(0).toTensor();
    if (real.scalar_type() != ScalarType::Float || real.numel() != (ssize_t)h.inputs)
        return nullptr;
    const float *values = real.const_data_ptr<float>();
    for (uint32_t k = 0; k < h.inputs; k++) {
        const double q = std::nearbyint((double)values[k] / (double)h.embedding_scale) + h.embedding_zero;
        network.embedding[k] = (int8_t)(q > -128 ? q < 127 ? q : 127 : -128); // what is no number becomes -128
    }
    return network.embedding.data();
}

// XNNPACK runs the network as a whole: there are no layers to be seen.
void embedder_watch(embedder_watcher *) {}

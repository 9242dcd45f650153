// A Verilated design with a serial line, behind a C interface: the far end of its "rx" and "tx", and a run loop.
// "glue.h" is generated beside this file for each build.

#include "glue.h"
#include "verilated.h"

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <memory>
#include <string>

namespace {

// Bytes to the design's rx, bit by bit.
class Speaker {
public:
    explicit Speaker(int clocks) : clocks_(clocks) {}
    void put(uint8_t byte) { waiting_.push_back(byte); }
    bool idle() const { return waiting_.empty() && bits_ == 0; }
    bool drive() {
        if (left_ == 0) {
            if (bits_ == 0 && !waiting_.empty()) {
                shift_ = 0x200u | waiting_.front() << 1;
                waiting_.pop_front();
                bits_ = 10;
            } else if (bits_ != 0) {
                shift_ >>= 1;
                bits_--;
                if (bits_ == 0) return drive();
            }
            if (bits_ != 0) left_ = clocks_;
        }
        if (left_) left_--;
        return bits_ == 0 || (shift_ & 1);
    }

private:
    const int clocks_;
    std::deque<uint8_t> waiting_;
    uint32_t shift_ = 0;
    int bits_ = 0, left_ = 0;
};

// Bytes from the design's tx, sampled in the middle of each bit.
class Listener {
public:
    explicit Listener(int clocks) : clocks_(clocks) {}
    std::deque<uint8_t> heard;
    uint64_t broken = 0;
    void sample(bool level) {
        if (left_ == 0) {
            if (!level) left_ = clocks_ / 2 + 9 * clocks_ + 1, shift_ = 0;
            return;
        }
        left_--;
        if (left_ % clocks_ != 0 || left_ > 8 * clocks_) return;
        if (left_ != 0) {
            shift_ = shift_ >> 1 | (level ? 0x80 : 0);
        } else if (level) {
            heard.push_back(shift_);
        } else {
            broken++;
        }
    }

private:
    const int clocks_;
    int left_ = 0;
    uint8_t shift_ = 0;
};

struct Board;
thread_local Board* current = nullptr;

struct Board {
    std::unique_ptr<VerilatedContext> verilated{new VerilatedContext};
    std::unique_ptr<Model> model;
    Speaker speaker;
    Listener listener;
    uint64_t cycles = 0;
    std::string stopped;

    Board(uint64_t seed, int clocks) : speaker(clocks), listener(clocks) {
        verilated->randReset(2);
        verilated->randSeed(int(seed & 0x7FFFFFFE) | 1);
        verilated->assertOn(true);
        current = this;
        model.reset(new Model(verilated.get()));
        model->rx = 1;
    }
    ~Board() {
        current = this;
        model->final();
    }
    void cycle() {
        model->rx = speaker.drive();
        model->aclk = 0;
        model->eval();
        listener.sample(model->tx);
        model->aclk = 1;
        model->eval();
        cycles++;
    }
    void stop(const char* what, const char* where, int line) {
        if (!model || !model->aresetn || !stopped.empty()) return;
        char text[300];
        snprintf(text, sizeof text, "cycle %" PRIu64 ": %s (%s:%d)", cycles, what ? what : "", where ? where : "", line);
        stopped = text;
    }
};

}  // namespace

// Verilator calls these from generated code (VL_USER_STOP, VL_USER_FATAL); the default would end the process.
void vl_stop(const char* file, int line, const char* hierarchy) {
    if (current) current->stop(hierarchy, file, line);
}
void vl_fatal(const char* file, int line, const char*, const char* message) {
    if (current) current->stop(message, file, line);
}

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT Board* serial_open(uint64_t seed, int clocks) { return new Board(seed, clocks); }
EXPORT void serial_close(Board* b) { delete b; }
EXPORT uint64_t serial_cycles(const Board* b) { return b->cycles; }
EXPORT uint64_t serial_broken(const Board* b) { return b->listener.broken; }
EXPORT int serial_lamps(const Board* b) { return b->model->lamps; }
EXPORT const char* serial_stopped(const Board* b) { return b->stopped.c_str(); }
EXPORT void serial_reset(Board* b, uint64_t cycles) {
    current = b;
    b->model->aresetn = 0;
    while (cycles--) b->cycle();
    b->model->aresetn = 1;
}
EXPORT void serial_put(Board* b, const uint8_t* data, uint64_t size) {
    while (size--) b->speaker.put(*data++);
}
// Runs at most `cycles`, and ends early when a byte has come.
EXPORT void serial_run(Board* b, uint64_t cycles) {
    current = b;
    while (cycles-- && b->stopped.empty() && b->listener.heard.size() < 1) b->cycle();
}
EXPORT uint64_t serial_get(Board* b, uint8_t* data, uint64_t most) {
    uint64_t count = 0;
    while (count < most && !b->listener.heard.empty()) {
        data[count++] = b->listener.heard.front();
        b->listener.heard.pop_front();
    }
    return count;
}

// The Verilated design as a device, behind a C interface: an AXI4-Lite manager with deadlines, a memory behind each AXI
// manager port (latency, limited rate, seeded stalls, faults), a check of both protocols, and a run loop.
//
// "glue.h" is generated beside this file for each build; it binds the ports of one design to LitePorts and AxiPorts.

#include "glue.h"
#include "verilated.h"
#ifdef SPIKELOOM_TRACE
#include "verilated_vcd_c.h"
#endif

#include <algorithm>
#include <cinttypes>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace {

constexpr int kMaxBurst = 16;
constexpr uint64_t kPage = 4096;
constexpr int kOkay = 0, kSlvErr = 2, kDecErr = 3;
constexpr size_t kMaxViolations = 20;
// The shell registers aresetn twice; after that a design in reset must be silent.
constexpr uint64_t kResetGrace = 4;

enum Channel { LITE_AW, LITE_W, LITE_B, LITE_AR, LITE_R, AXI_AW, AXI_W, AXI_B, AXI_AR, AXI_R, CHANNELS };

enum FaultKind { READ_ERROR, WRITE_ERROR, AR_SILENT, R_SILENT, AW_SILENT, W_SILENT, B_SILENT };

struct Fault {
    int kind;
    uint64_t low, high;  // address range of errors; for silence, `low` is the number of transfers still granted
    int response;
    int port;  // which one falls silent; -1: all
    bool concerns(int other) const { return port < 0 || port == other; }
};

// DRAM shared by all ports, in cycles of the design's clock; off while `banks` is 0.
struct DramSettings {
    uint32_t banks, page_bytes;
    uint32_t miss;            // cycles to close a page and open another
    uint32_t bytes_per_256;   // bytes of its data bus in 256 cycles
    uint32_t refresh_every, refresh;
    uint32_t jitter;          // most further cycles of a burst, drawn evenly
};

struct Settings {
    uint64_t base, bytes, seed;
    uint32_t latency;      // cycles from an address to its first answer
    uint32_t rate;         // read beats per 256 cycles
    uint32_t outstanding;  // bursts the memory accepts before it has answered the first
    uint32_t stall[CHANNELS];  // chance in 256 that a channel waits, per cycle
    DramSettings dram;
};

struct Statistics {
    uint64_t read_bursts, read_beats, write_bursts, write_beats, most_outstanding, lite_reads, lite_writes;
    uint64_t page_misses, refreshes, least_latency, most_latency, total_latency;
};

// A stretch of cycles in which reads were outstanding, on any port.
struct Episode {
    uint64_t first_address, first_beat, last_beat, beats;
};

class Random {
public:
    explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u | 1) {}
    bool chance(uint32_t of_256) { return of_256 != 0 && (next() & 0xFF) < of_256; }
    uint32_t below(uint32_t limit) { return limit == 0 ? 0 : uint32_t((next() & 0xFFFF) * limit >> 16); }

private:
    uint64_t next() {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        return state_ >> 40;
    }
    uint64_t state_;
};

// When a burst's first beat may leave the memory controller: banks with an open page each, one data bus, refresh of all
// banks at once. Bursts are served in the order of their addresses' arrival, whichever port they come from.
// Expected by spikeloom.arch.dram, which draws other numbers.
class Dram {
public:
    Dram(const DramSettings& settings, uint64_t seed) : s_(settings), random_(seed), open_(settings.banks, -1), free_(settings.banks) {}

    bool present() const { return s_.banks != 0; }
    uint64_t misses() const { return misses_; }
    uint64_t refreshes() const { return refreshed_; }

    uint64_t serve(uint64_t cycle, uint64_t address, uint64_t bytes) {
        const uint64_t start = (cycle + random_.below(s_.jitter + 1)) * 256;
        const uint64_t page = address / s_.page_bytes, bank = page % s_.banks;
        uint64_t ready = std::max(start, free_[bank]);
        if (open_[bank] != int64_t(page)) {
            ready += s_.miss * 256;
            misses_++;
        }
        uint64_t data = std::max(ready, bus_free_);
        const uint64_t period = s_.refresh_every ? data / (uint64_t(s_.refresh_every) * 256) : 0;
        if (period > refreshed_) {
            refreshed_ = period;
            std::fill(open_.begin(), open_.end(), -1);
            data = std::max(data, period * s_.refresh_every * 256 + s_.refresh * 256) + s_.miss * 256;
        }
        open_[bank] = int64_t(page);
        bus_free_ = free_[bank] = data + bytes * 65536 / s_.bytes_per_256;
        return data / 256;
    }

private:
    DramSettings s_;
    Random random_;
    std::vector<int64_t> open_;
    std::vector<uint64_t> free_;
    uint64_t bus_free_ = 0, refreshed_ = 0, misses_ = 0;
};

struct Device;
thread_local Device* current = nullptr;

// What is shared by all parts: settings, memory, the clock and the record of violations.
struct Context {
    Settings settings;
    uint8_t* memory;
    uint64_t cycle = 0, reset_cycles = 0;
    bool in_reset = false, stopped = false;
    std::vector<std::string> violations;
    std::vector<Fault> faults;
    Statistics statistics{};
    std::vector<Random> random;
    Dram dram;
    std::vector<Episode> episodes;
    uint64_t outstanding = 0;  // bursts that were addressed and not answered to the end, on all ports

    explicit Context(const Settings& s)
        : settings(s), memory(static_cast<uint8_t*>(calloc(s.bytes, 1))), dram(s.dram, s.seed * CHANNELS + CHANNELS + 1) {
        for (int n = 0; n < CHANNELS; n++) random.emplace_back(s.seed * CHANNELS + n + 1);
    }
    ~Context() { free(memory); }
    Context(const Context&) = delete;

    bool go(Channel channel) { return !random[channel].chance(settings.stall[channel]); }

    void violation(const char* format, ...) __attribute__((format(printf, 2, 3))) {
        if (violations.size() >= kMaxViolations) return;
        char text[400];
        int start = snprintf(text, sizeof text, "cycle %" PRIu64 ": ", cycle);
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text + start, sizeof text - start, format, arguments);
        va_end(arguments);
        violations.emplace_back(text);
    }
    bool silent(int kind, int port) const {
        for (const auto& fault : faults)
            if (fault.kind == kind && fault.low == 0 && fault.concerns(port)) return true;
        return false;
    }
    void granted(int kind, int port) {
        if (faults.empty()) return;
        for (auto& fault : faults)
            if (fault.kind == kind && fault.low && fault.concerns(port)) fault.low--;
    }
    bool inside(uint64_t address, uint64_t bytes) const {
        return address >= settings.base && address - settings.base <= settings.bytes - bytes;
    }
    int response(int kind, uint64_t address) const {
        for (const auto& fault : faults)
            if (fault.kind == kind && fault.low <= address && address < fault.high) return fault.response;
        return inside(address, kDataBytes) ? kOkay : kDecErr;
    }
};

// Packs the fields of a channel for comparison. All fields are plain integers or words of a wide port.
template <class... Fields> struct Packed {
    static constexpr size_t size = (sizeof(Fields) + ... + 0);
    uint8_t bytes[size];
    explicit Packed(const Fields&... fields) {
        uint8_t* to = bytes;
        ((memcpy(to, &fields, sizeof fields), to += sizeof fields), ...);
    }
};

// One AXI manager port of the design, and the memory behind it.
class MemoryPort {
public:
    MemoryPort(Context& context, AxiPorts ports, int number) : c_(context), p_(ports), number_(number) {}

    void drive() {
        const bool alive = !c_.in_reset;
        p_.arready = alive && reads_.size() < c_.settings.outstanding && c_.go(AXI_AR) && !silent(AR_SILENT);
        p_.awready = alive && writes_.size() + answers_.size() < c_.settings.outstanding && c_.go(AXI_AW) && !silent(AW_SILENT);
        p_.wready = alive && !writes_.empty() && c_.go(AXI_W) && !silent(W_SILENT);
        if (budget_ < kMaxBurst * 256) budget_ += c_.settings.rate;
        if (!offering_read_ && !reads_.empty() && reads_.front().due <= c_.cycle && budget_ >= 256 && c_.go(AXI_R) && !silent(R_SILENT))
            offer_read();
        if (!offering_answer_ && !answers_.empty() && answers_.front().due <= c_.cycle && c_.go(AXI_B) && !silent(B_SILENT)) {
            p_.bresp = answers_.front().response;
            p_.bid = answers_.front().id;
            offering_answer_ = true;
        }
        p_.rvalid = offering_read_;
        p_.bvalid = offering_answer_;
    }

    void sample() {
        if (offering_read_ && p_.rready) {
            offering_read_ = false;
            budget_ -= 256;
            c_.statistics.read_beats++;
            c_.granted(R_SILENT, number_);
            Episode& episode = c_.episodes.back();
            if (episode.beats++ == 0) episode.first_beat = c_.cycle;
            episode.last_beat = c_.cycle;
            Burst& burst = reads_.front();
            burst.address += kDataBytes;
            if (--burst.left == 0) {
                reads_.pop_front();
                c_.outstanding--;
            }
        }
        if (offering_answer_ && p_.bready) {
            offering_answer_ = false;
            answers_.pop_front();
            c_.granted(B_SILENT, number_);
        }
        if (p_.arvalid | ar_.waiting) {
            Packed payload(p_.arid, p_.araddr, p_.arlen, p_.arsize, p_.arburst, p_.arlock, p_.arcache, p_.arprot);
            if (ar_.check(c_, "m_axi AR", p_.arvalid, p_.arready, payload)) take_read();
        }
        // Data before address: a burst that is accepted in this cycle cannot take data in it, wready was low.
        if (p_.wvalid | w_.waiting) {
            Packed payload(p_.wdata, p_.wstrb, p_.wlast, p_.wid);
            if (w_.check(c_, "m_axi W", p_.wvalid, p_.wready, payload)) take_data();
        }
        if (p_.awvalid | aw_.waiting) {
            Packed payload(p_.awid, p_.awaddr, p_.awlen, p_.awsize, p_.awburst, p_.awlock, p_.awcache, p_.awprot);
            if (aw_.check(c_, "m_axi AW", p_.awvalid, p_.awready, payload)) take_write();
        }
    }

    void reset() {
        c_.outstanding -= reads_.size();
        reads_.clear();
        writes_.clear();
        answers_.clear();
        offering_read_ = offering_answer_ = false;
        ar_.waiting = aw_.waiting = w_.waiting = false;
    }

private:
    struct Burst {
        uint64_t address, due;
        int left, id, response;
    };
    struct Answer {
        uint64_t due;
        int id, response;
    };
    // Once valid, a channel keeps valid and payload until the transfer.
    struct Watch {
        bool waiting = false;
        uint8_t payload[64 + kDataBytes];
        // Returns whether this cycle transfers.
        template <class Payload> bool check(Context& c, const char* name, bool valid, bool ready, const Payload& now) {
            static_assert(Payload::size <= sizeof payload, "a channel is wider than expected");
            if (waiting && !(valid && memcmp(payload, now.bytes, Payload::size) == 0))
                c.violation("%s: %s before the transfer", name, valid ? "the payload changed" : "valid fell");
            if (c.in_reset && valid && c.reset_cycles > kResetGrace) c.violation("%s: valid during reset", name);
            waiting = valid && !ready && !c.in_reset;
            if (waiting) memcpy(payload, now.bytes, Payload::size);
            return valid && ready && !c.in_reset;
        }
    };

    bool silent(int kind) const { return !c_.faults.empty() && c_.silent(kind, number_); }

    void offer_read() {
        const Burst& burst = reads_.front();
        const int response = c_.response(READ_ERROR, burst.address);
        if (response == kOkay)
            memcpy(&p_.rdata, c_.memory + (burst.address - c_.settings.base), kDataBytes);
        else
            memset(&p_.rdata, 0xEE, kDataBytes);
        p_.rresp = response;
        p_.rid = burst.id;
        p_.rlast = burst.left == 1;
        offering_read_ = true;
    }

    void check_burst(const char* name, uint64_t address, int beats, int size, int burst, int id, int lock) {
        if ((1 << size) != kDataBytes || burst != 1)
            c_.violation("%s: size %d and burst %d are not full INCR beats", name, size, burst);
        if (address % kDataBytes) c_.violation("%s: address %#" PRIx64 " is not aligned to a beat", name, address);
        if (beats > kMaxBurst) c_.violation("%s: a burst of %d beats", name, beats);
        if (address / kPage != (address + uint64_t(beats) * kDataBytes - 1) / kPage)
            c_.violation("%s: %d beats from %#" PRIx64 " cross a 4 KiB boundary", name, beats, address);
        // With one id everything is answered in order, and no data can be interleaved; AXI4 knows no locked accesses at all.
        if (id || lock) c_.violation("%s: id %d and lock %d, not one plain stream", name, id, lock);
    }

    void take_read() {
        const int beats = int(p_.arlen) + 1;
        check_burst("m_axi AR", p_.araddr, beats, p_.arsize, p_.arburst, p_.arid, p_.arlock);
        uint64_t start = c_.cycle + 1;
        if (c_.dram.present()) start = c_.dram.serve(start, p_.araddr, uint64_t(beats) * kDataBytes);
        reads_.push_back({p_.araddr, start + c_.settings.latency, beats, int(p_.arid), kOkay});
        note(reads_.back().due - c_.cycle);
        c_.statistics.read_bursts++;
        if (reads_.size() > c_.statistics.most_outstanding) c_.statistics.most_outstanding = reads_.size();
        c_.granted(AR_SILENT, number_);
    }

    // Statistics of a burst that is answered after so many cycles, at the earliest.
    void note(uint64_t latency) {
        Statistics& s = c_.statistics;
        s.least_latency = s.read_bursts ? std::min(s.least_latency, latency) : latency;
        s.most_latency = std::max(s.most_latency, latency);
        s.total_latency += latency;
        s.page_misses = c_.dram.misses();
        s.refreshes = c_.dram.refreshes();
        if (c_.outstanding++ == 0) c_.episodes.push_back({c_.cycle, 0, 0, 0});
    }

    void take_write() {
        const int beats = int(p_.awlen) + 1;
        check_burst("m_axi AW", p_.awaddr, beats, p_.awsize, p_.awburst, p_.awid, p_.awlock);
        writes_.push_back({p_.awaddr, 0, beats, int(p_.awid), kOkay});
        c_.statistics.write_bursts++;
        c_.granted(AW_SILENT, number_);
    }

    void take_data() {
        Burst& burst = writes_.front();
        const int response = c_.response(WRITE_ERROR, burst.address);
        if (response > burst.response) burst.response = response;
        if (c_.inside(burst.address, kDataBytes) && response == kOkay) {
            const uint8_t* from = reinterpret_cast<const uint8_t*>(&p_.wdata);
            uint8_t* to = c_.memory + (burst.address - c_.settings.base);
            for (int lane = 0; lane < kDataBytes; lane++)
                if (p_.wstrb >> lane & 1) to[lane] = from[lane];
        }
        if (kAxi3 && int(p_.wid) != burst.id) c_.violation("m_axi W: WID %d differs from AWID %d", int(p_.wid), burst.id);
        if (bool(p_.wlast) != (burst.left == 1)) c_.violation("m_axi W: WLAST is %d with %d beats left", int(p_.wlast), burst.left);
        c_.statistics.write_beats++;
        c_.granted(W_SILENT, number_);
        burst.address += kDataBytes;
        if (--burst.left == 0) {
            answers_.push_back({c_.cycle + 1 + c_.settings.latency, burst.id, burst.response});
            writes_.pop_front();
        }
    }

    Context& c_;
    AxiPorts p_;
    int number_;
    std::deque<Burst> reads_, writes_;
    std::deque<Answer> answers_;
    Watch ar_, aw_, w_;
    bool offering_read_ = false, offering_answer_ = false;
    uint32_t budget_ = kMaxBurst * 256;
};

// The host's side: one register access at a time.
class LiteManager {
public:
    LiteManager(Context& context, LitePorts ports) : c_(context), p_(ports) {}

    bool busy() const { return busy_; }
    uint32_t value() const { return value_; }
    int response() const { return response_; }

    void start(bool write, uint32_t address, uint32_t value) {
        busy_ = true;
        write_ = write;
        address_left_ = true;
        data_left_ = write;
        p_.awaddr = p_.araddr = address;
        p_.wdata = value;
        p_.wstrb = 0xF;
    }

    void drive() {
        if (!busy_) {
            p_.awvalid = p_.wvalid = p_.arvalid = p_.bready = p_.rready = 0;
            return;
        }
        p_.awvalid = write_ && address_left_ && (p_.awvalid || c_.go(LITE_AW));
        p_.wvalid = write_ && data_left_ && (p_.wvalid || c_.go(LITE_W));
        p_.arvalid = !write_ && address_left_ && (p_.arvalid || c_.go(LITE_AR));
        p_.bready = write_ && c_.go(LITE_B);
        p_.rready = !write_ && c_.go(LITE_R);
    }

    void sample() {
        if (c_.in_reset) return;
        const bool answer_due = busy_ && !address_left_ && !data_left_;
        if (p_.bvalid && !(answer_due && write_)) c_.violation("s_axil B: an answer nobody waits for");
        if (p_.rvalid && !(answer_due && !write_)) c_.violation("s_axil R: an answer nobody waits for");
        if (held_ && !(write_ ? p_.bvalid : p_.rvalid && p_.rdata == held_value_))
            c_.violation("s_axil %s: valid or payload changed before the transfer", write_ ? "B" : "R");
        held_ = false;
        if (!busy_) return;
        if ((p_.awvalid && p_.awready) || (p_.arvalid && p_.arready)) address_left_ = false;
        if (p_.wvalid && p_.wready) data_left_ = false;
        const bool valid = write_ ? p_.bvalid : p_.rvalid;
        if (!valid || !answer_due) return;
        value_ = p_.rdata;
        response_ = write_ ? p_.bresp : p_.rresp;
        if (write_ ? p_.bready : p_.rready)
            busy_ = false;
        else {
            held_ = true;
            held_value_ = value_;
        }
    }

    void reset() {
        busy_ = held_ = false;
        p_.awvalid = p_.wvalid = p_.arvalid = 0;
    }

private:
    Context& c_;
    LitePorts p_;
    bool busy_ = false, write_ = false, address_left_ = false, data_left_ = false, held_ = false;
    uint32_t value_ = 0, held_value_ = 0;
    int response_ = 0;
};

struct Device {
    Context context;
    std::unique_ptr<VerilatedContext> verilated;
    std::unique_ptr<Model> model;
    std::unique_ptr<LiteManager> host;
    std::vector<MemoryPort> ports;
#ifdef SPIKELOOM_TRACE
    std::unique_ptr<VerilatedVcdC> trace;
#endif

    Device(const Settings& settings, const char* vcd) : context(settings), verilated(new VerilatedContext) {
        verilated->randReset(2);
        verilated->randSeed(int(settings.seed & 0x7FFFFFFE) | 1);
        verilated->assertOn(true);
#ifdef SPIKELOOM_TRACE
        verilated->traceEverOn(true);
#endif
        current = this;
        model.reset(new Model(verilated.get()));
        host.reset(new LiteManager(context, bind_lite(*model)));
        for (int n = 0; n < kManagers; n++) ports.emplace_back(context, bind_manager(*model, n), n);
#ifdef SPIKELOOM_TRACE
        if (vcd && *vcd) {
            trace.reset(new VerilatedVcdC);
            model->trace(trace.get(), 99);
            trace->open(vcd);
        }
#else
        (void)vcd;
#endif
    }

    ~Device() {
        current = this;
#ifdef SPIKELOOM_TRACE
        if (trace) trace->close();
#endif
        model->final();
    }

    void dump(int offset) {
#ifdef SPIKELOOM_TRACE
        if (trace) trace->dump(context.cycle * 10 + offset);
#else
        (void)offset;
#endif
    }

    void cycle() {
        host->drive();
        for (auto& port : ports) port.drive();
        model->aclk = 0;
        model->eval();
        dump(0);
        host->sample();
        for (auto& port : ports) port.sample();
        model->aclk = 1;
        model->eval();
        dump(5);
        context.cycle++;
        if (context.in_reset) context.reset_cycles++;
    }

    bool healthy() const { return context.violations.empty() && !context.stopped; }

    void reset(uint64_t cycles) {
        context.in_reset = true;
        context.reset_cycles = 0;
        host->reset();
        for (auto& port : ports) port.reset();
        model->aresetn = 0;
        while (cycles--) cycle();
        model->aresetn = 1;
        context.in_reset = false;
        cycle();
    }

    // 0: answered; 1: no answer within the deadline; 2: a violation or an assertion ended the run; 3: still busy
    int access(bool write, uint32_t address, uint32_t value, uint64_t deadline) {
        if (!healthy()) return 2;
        if (host->busy()) return 3;
        host->start(write, address, value);
        while (host->busy()) {
            if (deadline-- == 0) return 1;
            if (!healthy()) return 2;
            cycle();
        }
        write ? context.statistics.lite_writes++ : context.statistics.lite_reads++;
        return healthy() ? 0 : 2;
    }
};

}  // namespace

// Verilator calls these from generated code (VL_USER_STOP, VL_USER_FATAL); the default would end the process.
void vl_stop(const char* file, int line, const char* hierarchy) {
    if (!current || current->context.in_reset) return;  // before its reset a design may be in any state
    current->context.violation("the design stopped itself in %s (%s:%d)", hierarchy ? hierarchy : "", file ? file : "", line);
    current->context.stopped = true;
}

void vl_fatal(const char* file, int line, const char* hierarchy, const char* message) {
    if (!current) return;
    current->context.violation("%s in %s (%s:%d)", message ? message : "fatal", hierarchy ? hierarchy : "", file ? file : "", line);
    current->context.stopped = true;
}

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT Device* sim_open(const Settings* settings, const char* vcd) { return new Device(*settings, vcd); }
EXPORT void sim_close(Device* d) { delete d; }
EXPORT uint8_t* sim_memory(Device* d) { return d->context.memory; }
EXPORT uint64_t sim_cycles(const Device* d) { return d->context.cycle; }
EXPORT int sim_irq(const Device* d) { return irq_of(*d->model); }
EXPORT void sim_reset(Device* d, uint64_t cycles) {
    current = d;
    d->reset(cycles);
}
EXPORT int sim_read32(Device* d, uint32_t address, uint64_t deadline, uint32_t* value, int* response) {
    current = d;
    const int status = d->access(false, address, 0, deadline);
    *value = d->host->value();
    *response = d->host->response();
    return status;
}
EXPORT int sim_write32(Device* d, uint32_t address, uint32_t value, uint64_t deadline, int* response) {
    current = d;
    const int status = d->access(true, address, value, deadline);
    *response = d->host->response();
    return status;
}
// Runs at most `cycles`; ends early at a violation and, if asked, at the interrupt. Returns the level of the interrupt.
EXPORT int sim_run(Device* d, uint64_t cycles, int until_irq) {
    current = d;
    while (cycles-- && d->healthy() && !(until_irq && irq_of(*d->model))) d->cycle();
    return irq_of(*d->model);
}
EXPORT void sim_fault(Device* d, int kind, uint64_t low, uint64_t high, int response, int port) {
    d->context.faults.push_back({kind, low, high, response, port});
}
EXPORT void sim_heal(Device* d) { d->context.faults.clear(); }
EXPORT size_t sim_violations(const Device* d) { return d->context.violations.size(); }
EXPORT const char* sim_violation(const Device* d, size_t n) { return d->context.violations[n].c_str(); }
EXPORT void sim_statistics(const Device* d, Statistics* to) { *to = d->context.statistics; }
EXPORT size_t sim_episodes(const Device* d) { return d->context.episodes.size(); }
EXPORT const Episode* sim_episode(const Device* d) { return d->context.episodes.data(); }

#include "fuzz_damage.h"

#include <stdlib.h>
#include <string.h>

#include "nestling_head.h"

/* ---- chance ----------------------------------------------------------------------------------------------------------------- */

static uint64_t state;

void begin_with(uint64_t seed)
{
    state = seed;
}

uint64_t drawn(void)
{ /* splitmix64 */
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t below(uint64_t count)
{
    return (uint32_t)(drawn() % count);
}

int chance(uint32_t percent)
{
    return below(100) < percent;
}

/* ---- damage ----------------------------------------------------------------------------------------------------------------- */

static uint64_t extreme(void)
{
    static const uint64_t known[] = {0,
                                     1,
                                     2,
                                     3,
                                     4,
                                     7,
                                     8,
                                     127,
                                     128,
                                     255,
                                     256,
                                     4096,
                                     10000,
                                     65535,
                                     65536,
                                     1u << 24,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     0x7f800000,
                                     0xff800000,
                                     0x7fc00000,
                                     0x3f800000,
                                     0xbf800000,
                                     0x7f7fffff,
                                     0x00000001,
                                     0x33d6bf95,
                                     0x3ff0000000000000,
                                     0x7ff0000000000000,
                                     0x7ff8000000000000,
                                     0x3fa999999999999a,
                                     0x0000000000000001};
    return chance(80) ? known[below(sizeof known / sizeof *known)] : drawn() >> below(64);
}

content damaged(const content *of, size_t most)
{
    content made = {malloc(of->size + LARGE), of->size};
    if (!made.bytes)
        abort();
    memcpy(made.bytes, of->bytes, of->size);
    for (uint32_t times = 1 + below(4); times && made.size > 8; times--) {
        const size_t at = chance(60) ? below(made.size < 300 ? made.size : 300) : below(made.size), left = made.size - at;
        const size_t length = (size_t)1 << below(11), taken = length < left ? length : left;
        const uint64_t value = extreme();
        switch (below(8)) {
        case 0: made.bytes[at] ^= (uint8_t)(1 << below(8)); break;
        case 1: made.bytes[at] = (uint8_t)value; break;
        case 2:
        case 3: memcpy(made.bytes + (at & ~(size_t)3), &value, left < 8 ? 1 : chance(70) ? 4 : 8); break;
        case 4: made.size = chance(20) ? at : made.size; break;
        case 5: memmove(made.bytes + at, made.bytes + at + taken, left - taken), made.size -= taken; break;
        case 6: memmove(made.bytes + below(made.size - taken + 1), made.bytes + at, taken); break;
        case 7:
            if (made.size + taken > most)
                break;
            memmove(made.bytes + at + taken, made.bytes + at, left);
            made.size += taken;
        }
    }
    return made;
}

static uint32_t crc32_of(const uint8_t *bytes, size_t count)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

content damaged_head(const content *of, int progress)
{
    content made = {malloc(of->size + LARGE), of->size};
    if (!made.bytes)
        abort();
    memset(made.bytes, 0, of->size + LARGE);
    memcpy(made.bytes, of->bytes, of->size);
    const int one = progress || chance(50); /* number of its header, and no more */
    for (uint32_t times = one ? 1 : below(4); times; times--) {
        const uint64_t value = extreme();
        const size_t at = progress            ? 96 + 4 * below(12)
                          : one || chance(70) ? 8 + 4 * below((HEADER - 8) / 4)
                                              : HEADER + below(made.size - HEADER - 8);
        memcpy(made.bytes + at, &value, one || chance(70) ? 4 : chance(50) ? 8 : 1);
    }
    nestling_head_header header;
    memcpy(&header, made.bytes, sizeof header);
    const uint32_t size = nestling_head_bytes(&header);
    if (chance(80) && size && size < of->size + LARGE) {
        memcpy(made.bytes + offsetof(nestling_head_header, bytes), &size, sizeof size);
        made.size = size;
    }
    if (chance(5))
        made.size = below(made.size + 100);
    if (chance(95) && made.size > HEADER + CRC) {
        const uint32_t crc = crc32_of(made.bytes, made.size - CRC);
        memcpy(made.bytes + made.size - CRC, &crc, sizeof crc);
    }
    return made;
}

content damaged_features(const content *of, uint32_t inputs)
{
    const size_t heading = 8 + 6 * 4 + 8 + 32 + NESTLING_RUNTIME_BYTES, record = 8 + inputs + CRC;
    if (chance(50) || of->size < heading + record)
        return damaged(of, of->size + 5000);
    content made = {malloc(of->size), of->size};
    if (!made.bytes)
        abort();
    memcpy(made.bytes, of->bytes, of->size);
    uint8_t *at = made.bytes + heading + below((of->size - heading) / record) * record;
    at[below(record - CRC)] = (uint8_t)drawn();
    const uint32_t crc = crc32_of(at, record - CRC);
    memcpy(at + record - CRC, &crc, sizeof crc);
    return made;
}

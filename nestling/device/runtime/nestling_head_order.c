/* See nestling_head.h: the order of the data, which nestling/device/order.py makes as well. */
#include "nestling_head_parts.h"

/* splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, with Vigna's constants. */
static uint64_t mixed(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in 0 .. count - 1 without bias: Lemire, "Fast random integer generation in an interval", 2019. */
static uint32_t draw_below(uint64_t *state, uint32_t count)
{
    const uint32_t refused = (uint32_t)(0u - count) % count;
    uint64_t product;
    do {
        *state += 0x9e3779b97f4a7c15u;
        product = (mixed(*state) >> 32) * count;
    } while ((uint32_t)product < refused);
    return (uint32_t)(product >> 32);
}

/* Fisher and Yates' shuffle, as Durstenfeld wrote it (Algorithm 235, 1964). */
static void shuffle(uint32_t *places, uint32_t count, uint64_t *state)
{
    for (uint32_t last = count; last-- > 1;) {
        const uint32_t chosen = draw_below(state, last + 1), moved = places[last];
        places[last] = places[chosen];
        places[chosen] = moved;
    }
}

/* Sets places, grouped by class, and starts: of the classes that have items, in their order, and the end. Returns how many have. */
static uint32_t group(nestling_order *order)
{
    uint32_t *starts = order->starts, present = 0;
    for (uint32_t c = 0; c <= order->classes; c++)
        starts[c] = 0;
    for (uint32_t i = 0; i < order->items; i++)
        starts[order->labels[i] + 1]++;
    for (uint32_t c = 0; c < order->classes; c++)
        starts[c + 1] += starts[c];
    for (uint32_t i = 0; i < order->items; i++)
        order->places[starts[order->labels[i]]++] = i; /* each start becomes its end */
    for (uint32_t c = 0, end = 0; c < order->classes; c++) {
        const uint32_t start = end;
        end = starts[c];
        if (end > start)
            starts[present++] = start;
    }
    starts[present] = order->items;
    return present;
}

void nestling_order_make(nestling_order *order, uint64_t seed, uint32_t epoch)
{
    uint64_t state = mixed(mixed(seed + 0x9e3779b97f4a7c15u) + epoch);
    order->present = 0;
    order->length = order->items;
    if (!order->balanced) {
        for (uint32_t i = 0; i < order->items; i++)
            order->places[i] = i;
        shuffle(order->places, order->items, &state);
        return;
    }
    uint32_t largest = 0;
    order->present = group(order);
    for (uint32_t p = 0; p < order->present; p++) {
        const uint32_t count = order->starts[p + 1] - order->starts[p];
        shuffle(order->places + order->starts[p], count, &state);
        largest = count > largest ? count : largest;
    }
    const uint32_t most = 0xffffffffu / order->present;
    order->length = order->present * least(largest, most);
}

uint32_t nestling_order_item(const nestling_order *order, uint32_t place)
{
    if (!order->balanced)
        return order->places[place];
    const uint32_t *start = order->starts + place % order->present;
    return order->places[start[0] + place / order->present % (start[1] - start[0])];
}

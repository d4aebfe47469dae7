// What is brought ahead of its use: weights, and the prefix's keys and values.

// The prefix's keys and values in tiles, once for all steps.
__device__ __forceinline__ void Block::order_keys() {
    for (int i = block; i < p.layers * parts * 2; i += gridDim.x) {
        int layer = i / (2 * parts), part = (i >> 1) % parts, unit = thread & 31;
        Keys here = keys_of(part, parts, valid);
        const u16* from = i & 1 ? p.values : p.keys;
        from += ((u64)layer * p.positions + here.first) * DIM + unit * 8;
        u8* to = p.tiles + ((layer * PARTS + part) * 2 + (i & 1)) * (u64)KEYS_BYTES +
                 (unit >> 3) * CHUNK;
        uint4 v[8];
#pragma unroll
        for (int k = 0; k < 8; k++) {
            int key = 8 * k + (thread >> 5);
            v[k] = make_uint4(0, 0, 0, 0);
            if (key < here.prefix) v[k] = *(const uint4*)(from + key * DIM);
        }
#pragma unroll
        for (int k = 0; k < 8; k++)
            *(uint4*)(to + swizzled(8 * k + (thread >> 5), (unit & 7) * 16)) = v[k];
    }
}

struct Load {
    int to, bytes, free, stride;  // `free`: what must be so before, -1: nothing
    u64 at;
};
__constant__ Load LOADS[7] = {
    {W_QKV, QKV_BYTES, Block::QKV_FREE, QKV_BYTES, 0},
    {W_OUT, OUT_BYTES, Block::OUT_FREE, OUT_BYTES, OUT_AT},
    {W_UP + HALF_UP, HALF_UP, Block::UP_FREE, UP_BYTES, UP_AT + HALF_UP},
    {KEYS, KEYS_BYTES, -1, 0, 0},
    {VALUES, KEYS_BYTES, Block::DOWN_FREE, 0, KEYS_BYTES},
    {W_UP, HALF_UP, Block::KEYS_FREE, UP_BYTES, UP_AT},
    {W_DOWN, DOWN_BYTES, -1, DOWN_BYTES, DOWN_AT},
};

// One thread: weights, keys and values in the order in which they are used, as places get free,
// and no faster than needed: a burst would hold up the few bytes that others wait for.
__device__ __forceinline__ void Block::produce() {
    long long due = clock64();
    int part = block >> 3, layer = 0;
    bool cached = part < parts && keys.prefix;
    for (int turn = 0; turn < p.steps * p.layers; turn++) {
#pragma unroll 1
        for (int which = 0; which < 7; which++) {
            Load load = LOADS[which];
            bool of_cache = load.stride == 0;
            if (which == 0 && block >= QKV_BLOCKS) continue;
            if (load.free == KEYS_FREE)
                wait_bytes(barrier(KEYS_FREE), turn & 1);  // of this layer, the others of the last
            else if (load.free >= 0 && turn)
                wait_bytes(barrier(load.free), (turn - 1) & 1);
            if (of_cache && !cached) continue;
            if (of_cache && !turn) {
                wait_for(p.counters, STREAM, gridDim.x);
                fence_global();
            }
            const u8* from = of_cache
                                 ? p.tiles + (layer * PARTS + part) * 2 * (u64)KEYS_BYTES + load.at
                                 : p.weights + layer * LAYER + load.at + (u64)block * load.stride;
            fence_shared();
            expect(barrier(QKV_HERE + which), load.bytes);
#pragma unroll 1
            for (int i = 0; i < load.bytes; i += PIECE) {
                long long now = clock64();
                while (now < due) now = clock64();
                due = now + p.pace;
                copy_bulk(base + load.to + i, from + i, PIECE, barrier(QKV_HERE + which));
            }
        }
        layer = layer + 1 < p.layers ? layer + 1 : 0;
    }
}

package dev.tidemark.engine.bitmap;

import java.lang.foreign.MemorySegment;

/**
 * The operations that have a vector twin, each with a call that proves it: made on both twins, it
 * returns the same and leaves the same memory.
 */
enum Kernel {
  SUMMARIZE {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      return ops.summarize(on.src, bits >>> 6, on.lines);
    }
  },
  LIST_RUNS {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      RunCursor runs = on.cursor(ops);
      // Most bitmaps come with a summary.
      if (srcBit == 0) {
        ScalarBitmapOps.summarizeFrom(on.src, 0, bits >>> 6, on.lines);
        runs.reset(on.src, on.lines, bits);
      } else {
        runs.reset(on.src, srcBit, bits);
      }
      long sum = 0;
      for (int found = runs.batch(); found > 0; found = runs.batch()) {
        for (int run = 0; run < found; run++) {
          sum = sum * 31 + (runs.start(run) ^ runs.length(run));
        }
      }
      return sum;
    }
  },
  CLEAR_LINES {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      ScalarBitmapOps.summarizeFrom(on.src, 0, bits >>> 6, on.lines);
      ops.clearLines(on.src, bits >>> 6, on.lines);
      return 0;
    }
  },
  OR_LINES {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      ScalarBitmapOps.summarizeFrom(on.src, 0, bits >>> 6, on.lines);
      return ops.orLines(on.dst, on.src, bits >>> 6, on.lines);
    }
  },
  OR_COUNT {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      return ops.orCount(on.dst, dstBit, on.src, srcBit, bits);
    }
  },
  OR_COUNT_CLEAR {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      return ops.orCountClear(on.dst, dstBit, on.src, srcBit, bits);
    }
  },
  OR {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      ops.or(on.dst, dstBit, on.src, srcBit, bits);
      return 0;
    }
  },
  AND_NOT {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      ops.andNot(on.dst, dstBit, on.src, srcBit, bits);
      return 0;
    }
  },
  CARDINALITY {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      return ops.cardinality(on.src, srcBit, bits);
    }
  },
  ANY {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      return ops.any(on.src, srcBit, bits) ? 1 : 0;
    }
  },
  SET {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      ops.set(on.src, srcBit, bits);
      return 0;
    }
  },
  CLEAR {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      ops.clear(on.src, srcBit, bits);
      return 0;
    }
  },
  NEXT_SET {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      return ops.nextSet(on.src, srcBit, srcBit + bits);
    }
  },
  NEXT_CLEAR {
    @Override
    long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits) {
      return ops.nextClear(on.src, srcBit, srcBit + bits);
    }
  };

  /** Whether it takes a bitmap from its start, with a summary. */
  boolean byLine() {
    return compareTo(OR_LINES) <= 0;
  }

  /** Of one kernel, in a set of them. */
  final int bit = 1 << ordinal();

  /** All of them, as a set. */
  static final int ALL = (1 << values().length) - 1;

  /**
   * Works on the scratch bitmaps.
   *
   * @param dstBit where the range begins in the destination, if the operation takes one
   * @param srcBit where it begins in the source, likewise
   * @param bits how long it is
   */
  abstract long call(CheckedBitmapOps ops, Scratch on, int dstBit, int srcBit, long bits);

  /** The bitmaps of a call. */
  static final class Scratch {
    final MemorySegment dst;
    final MemorySegment src;
    final MemorySegment lines;
    private CheckedBitmapOps cursorOf;
    private RunCursor cursor;

    Scratch(MemorySegment dst, MemorySegment src, MemorySegment lines) {
      this.dst = dst;
      this.src = src;
      this.lines = lines;
    }

    private RunCursor cursor(CheckedBitmapOps ops) {
      if (cursorOf != ops) {
        cursorOf = ops;
        cursor = new RunCursor(ops);
      }
      return cursor;
    }
  }
}

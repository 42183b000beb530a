package dev.tidemark.bench.hot;

import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.engine.log.Epoch;
import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Mapping;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import java.util.Arrays;

/** The first rounds of a process: merge, harvest, all runs, commit. */
public final class FirstSync {
  private static final long BYTES = 1L << 34;
  private static final long LARGE_BYTES = 1L << 40;

  /** Of a guest that has no vectors by then something is wrong. */
  private static final long MAX_NANOS = 120_000_000_000L;

  private FirstSync() {}

  /**
   * Prints nanoseconds: with {@code cold} of a first round of 16 GiB, with {@code proven} the same
   * once vectors are proven; with {@code until} of a first round of 1 TiB, of the time from the
   * process's start until each kernel of a round was proven, and of the round after that.
   */
  public static void main(String[] arguments) throws InterruptedException {
    switch (arguments[0]) {
      case "cold" -> System.out.println(firstRound());
      case "proven" -> {
        Bitmaps.prove();
        System.out.println(firstRound());
      }
      case "until" -> untilProven();
      default -> throw new IllegalArgumentException(arguments[0]);
    }
  }

  /** Has a process do it; the nanoseconds that it printed. */
  public static long[] inAnotherProcess(String how) {
    Process process = OtherJvm.start(FirstSync.class, how);
    try {
      return Arrays.stream(process.inputReader().readLine().split(" "))
          .mapToLong(Long::parseLong)
          .toArray();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static long firstRound() {
    try (Rounds rounds = new Rounds(BYTES)) {
      return rounds.nanos();
    }
  }

  private static void untilProven() {
    long start = ManagementFactory.getRuntimeMXBean().getStartTime();
    try (Rounds rounds = new Rounds(LARGE_BYTES)) {
      long first = rounds.nanos();
      long begin = System.nanoTime();
      while (!Bitmaps.inUse()
          .matches("vector.*SUMMARIZE.*LIST_RUNS.*CLEAR_LINES.*OR_COUNT\\b.*scalar.*")) {
        rounds.nanos();
        if (System.nanoTime() - begin > MAX_NANOS) {
          throw new IllegalStateException("no vectors: " + Bitmaps.inUse());
        }
      }
      long proven = (System.currentTimeMillis() - start) * 1_000_000;
      rounds.nanos();
      System.out.println(first + " " + proven + " " + rounds.nanos());
    }
  }

  private static final class Rounds implements AutoCloseable {
    private final RamBlockLog log;
    private final Mapping answer;
    private final long expected;
    private final long pages;

    @SuppressWarnings("restricted")
    Rounds(long bytes) {
      pages = bytes >> 12;
      MemorySegment memory = MemorySegment.ofAddress(1L << 40).reinterpret(bytes);
      log = new RamBlockLog(new RamBlock("ram", memory));
      answer = Mapping.guarded(pages >> 3);
      expected = new BitmapInput(0.01, false).fill(answer.segment(), 0);
    }

    long nanos() {
      long begin = System.nanoTime();
      try (FillPlane fill = log.fill()) {
        fill.merge(answer.segment(), 0, 0, pages);
      }
      Epoch epoch = log.harvest();
      RunCursor runs = epoch.runs();
      long found = 0;
      for (int some = runs.batch(); some > 0; some = runs.batch()) {
        for (int run = 0; run < some; run++) {
          found += runs.length(run);
        }
      }
      epoch.commit();
      long nanos = System.nanoTime() - begin;
      if (found != expected) {
        throw new IllegalStateException(found + " pages instead of " + expected);
      }
      return nanos;
    }

    @Override
    public void close() {
      log.close();
      answer.close();
    }
  }
}

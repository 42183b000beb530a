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

/** The first round of a process: merge, harvest, all runs, commit for a guest of 16 GiB. */
public final class FirstSync {
  private static final long BYTES = 1L << 34;

  private FirstSync() {}

  /**
   * Prints how long it took in nanoseconds; {@code proven} as the argument has vectors proven
   * before.
   */
  public static void main(String[] arguments) throws InterruptedException {
    if (arguments[0].equals("proven")) {
      Bitmaps.prove();
    }
    System.out.println(nanos());
  }

  /** Has a process do it, {@code proven} or {@code cold}; the nanoseconds it took. */
  public static long inAnotherProcess(String how) {
    Process process = OtherJvm.start(FirstSync.class, how);
    try {
      return Long.parseLong(process.inputReader().readLine());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @SuppressWarnings("restricted")
  private static long nanos() {
    MemorySegment memory = MemorySegment.ofAddress(1L << 40).reinterpret(BYTES);
    try (RamBlockLog log = new RamBlockLog(new RamBlock("ram", memory));
        Mapping answer = Mapping.guarded(BYTES >> 15)) {
      long expected = new BitmapInput(0.01, false).fill(answer.segment(), 0);
      long begin = System.nanoTime();
      try (FillPlane fill = log.fill()) {
        fill.merge(answer.segment(), 0, 0, BYTES >> 12);
      }
      Epoch epoch = log.harvest();
      RunCursor runs = epoch.runs();
      long pages = 0;
      for (int found = runs.batch(); found > 0; found = runs.batch()) {
        for (int run = 0; run < found; run++) {
          pages += runs.length(run);
        }
      }
      epoch.commit();
      long nanos = System.nanoTime() - begin;
      if (pages != expected) {
        throw new IllegalStateException(pages + " pages instead of " + expected);
      }
      return nanos;
    }
  }
}

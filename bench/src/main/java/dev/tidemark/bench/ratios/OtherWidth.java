package dev.tidemark.bench.ratios;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.bench.hot.BitmapInput;
import dev.tidemark.bench.hot.HarvestPath;
import dev.tidemark.bench.hot.MergePath;
import dev.tidemark.bench.hot.OtherJvm;
import dev.tidemark.bench.hot.SyncPath;
import dev.tidemark.bench.ratios.Contest.Side;
import dev.tidemark.engine.bitmap.Bitmaps;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The operations on bitmaps in a process of their own, with vectors of another width. */
final class OtherWidth implements AutoCloseable {
  /** What is measured: what it is called, and its size. */
  static final Map<String, String> OPERATIONS = new LinkedHashMap<>();

  static {
    OPERATIONS.put("merge", "512 KiB");
    OPERATIONS.put("merge and clear", "512 KiB");
    OPERATIONS.put("merge, shifted by 7", "512 KiB");
    OPERATIONS.put("cardinality", "512 KiB");
    OPERATIONS.put("harvest and commit", "512 KiB");
    OPERATIONS.put("sync, harvest, commit", "16 GiB");
  }

  private final Process process;
  private final BufferedReader answers;
  private final PrintWriter questions;
  private final String description;

  /**
   * @param option for Java, what narrows its vectors
   * @param mode {@code tidemark.vector}
   */
  OtherWidth(String option, String mode) {
    ProcessBuilder builder =
        OtherJvm.command(
            List.of("-XX:+IgnoreUnrecognizedVMOptions", option, "-Dtidemark.vector=" + mode),
            OtherWidth.class);
    try {
      process = builder.redirectError(ProcessBuilder.Redirect.DISCARD).start();
      answers = process.inputReader();
      questions = new PrintWriter(process.outputWriter(), true);
      description = answers.readLine();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Which operations its gate chose. */
  String description() {
    return description;
  }

  /** Has it take a sample; nanoseconds for one job. */
  long nanos(String operation) {
    questions.println(operation);
    try {
      return Long.parseLong(answers.readLine());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Override
  public void close() {
    questions.close();
    try {
      process.waitFor();
    } catch (InterruptedException e) {
      process.destroy();
      Thread.currentThread().interrupt();
    }
  }

  /**
   * Keeps this thread on the first processor it may use (sched_setaffinity(2)). Two such processes
   * would settle on two, of which one may be slower for minutes: what shares its core is elsewhere.
   */
  @SuppressWarnings("restricted")
  private static void stayOnOneProcessor() {
    Linker linker = Linker.nativeLinker();
    FunctionDescriptor type = FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_LONG, ADDRESS);
    SymbolLookup libc = linker.defaultLookup();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment mask = arena.allocate(1024, 8);
      MethodHandle get = linker.downcallHandle(libc.findOrThrow("sched_getaffinity"), type);
      MethodHandle set = linker.downcallHandle(libc.findOrThrow("sched_setaffinity"), type);
      check((int) get.invokeExact(0, mask.byteSize(), mask), "sched_getaffinity");
      long first = Bitmaps.scalar().nextSet(mask, 0, mask.byteSize() * 8);
      mask.fill((byte) 0);
      Bitmaps.scalar().set(mask, first, 1);
      check((int) set.invokeExact(0, mask.byteSize(), mask), "sched_setaffinity");
    } catch (Throwable e) {
      throw new IllegalStateException("cannot stay on one processor", e);
    }
  }

  private static void check(int result, String call) {
    if (result < 0) {
      throw new IllegalStateException(call + "(this thread) failed");
    }
  }

  /** Answers each name of an operation with the nanoseconds it takes. */
  public static void main(String[] arguments) throws IOException, InterruptedException {
    stayOnOneProcessor();
    BitmapInput input = new BitmapInput(0.01, false);
    Bitmaps.prove();
    try (MergePath merge = new MergePath(512 << 10, input);
        MergePath cleared = new MergePath(512 << 10, input);
        HarvestPath harvest = new HarvestPath(512 << 10, input);
        SyncPath sync = new SyncPath(16L << 30, input)) {
      Map<String, Side> sides =
          Map.of(
              "merge", new Side(null, merge::orCount, 1),
              "merge and clear", new Side(cleared::refill, cleared::orCountClear, 1),
              "merge, shifted by 7", new Side(null, () -> merge.orCountShifted(7), 1),
              "cardinality", new Side(null, merge::cardinality, 1),
              "harvest and commit", new Side(harvest::refill, harvest::tidemark, 1),
              "sync, harvest, commit", new Side(null, sync::tidemark, 1));
      Interleaved warm = new Interleaved(1, 3_000_000, 300_000_000);
      Interleaved measure = new Interleaved(1, 3_000_000, 0);
      // In the same order in each process, as what was compiled last depends on it.
      OPERATIONS.keySet().forEach(name -> nanos(warm, sides.get(name)));
      System.out.println(Bitmaps.description());
      BufferedReader questions = new BufferedReader(new InputStreamReader(System.in));
      for (String name = questions.readLine(); name != null; name = questions.readLine()) {
        System.out.println(Math.round(nanos(measure, sides.get(name))));
      }
    }
  }

  private static double nanos(Interleaved measure, Side side) {
    return measure.measure(Contest.limit("", "", "", "", 1, side).unsteady()).tidemarkNanos();
  }
}

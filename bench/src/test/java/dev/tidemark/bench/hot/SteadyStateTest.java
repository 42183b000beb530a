package dev.tidemark.bench.hot;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.management.ThreadMXBean;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.io.BufferedReader;
import java.lang.management.ManagementFactory;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import java.util.function.ToLongFunction;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Every hot path that goes on for as long as a migration allocates nothing but what the JDK does in
 * each call of the kernel.
 *
 * <p>In a JVM that only interprets: a compiler can take objects away that the interpreter makes,
 * and adds none, so that what holds there holds however much is compiled. Vectors are the
 * exception, as they are objects until compiled, and are forbidden here.
 */
class SteadyStateTest {
  private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();
  private static final BitmapInput INPUT = new BitmapInput(0.01, false);
  private static final long BYTES = 32 << 10;
  private static final int PER_CALL = 40;
  private static final int JOBS = 20;

  /** Code is linked when it is reached for the first time, which makes objects once. */
  private static final int BATCHES = 20;

  /** What the other JVM found: bytes for {@link #JOBS} jobs, by path. */
  private static final Map<String, Long> ALLOCATED = new HashMap<>();

  /** A path, the calls of the kernel in its job, and the job with what has to come before it. */
  record Steady(String name, int calls, Supplier<Optional<String>> missing, Supplier<Job> maker) {
    private long budget() {
      return (long) JOBS * calls * PER_CALL;
    }

    @Override
    public String toString() {
      return name;
    }
  }

  record Job(AutoCloseable path, Runnable prepare, LongSupplier job) {}

  private static <T extends AutoCloseable> Steady steady(
      String name,
      int calls,
      Supplier<Optional<String>> missing,
      Supplier<T> maker,
      Function<T, Runnable> prepare,
      ToLongFunction<T> job) {
    return new Steady(
        name,
        calls,
        missing,
        () -> {
          T path = maker.get();
          return new Job(path, prepare.apply(path), () -> job.applyAsLong(path));
        });
  }

  private static Optional<String> noPagemap() {
    return Userfaultfd.probe()
        .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
        .or(Pagemap::missing)
        .or(Rivals::missing);
  }

  private static Runnable nothing() {
    return () -> {};
  }

  static Stream<Steady> paths() {
    Supplier<Optional<String>> c = Rivals::missing;
    Supplier<MergePath> merge = () -> new MergePath(BYTES, INPUT);
    return Stream.of(
        steady("merge", 0, c, merge, p -> nothing(), MergePath::orCount),
        steady("merge and clear", 0, c, merge, p -> p::refill, MergePath::orCountClear),
        steady("merge, shifted", 0, c, merge, p -> nothing(), p -> p.orCountShifted(7)),
        steady("cardinality", 0, c, merge, p -> nothing(), MergePath::cardinality),
        steady(
            "harvest and commit",
            0,
            c,
            () -> new HarvestPath(BYTES, INPUT),
            p -> p::refill,
            HarvestPath::tidemark),
        steady(
            "sync", 0, c, () -> new SyncPath(1L << 30, INPUT), p -> nothing(), SyncPath::tidemark),
        steady(
            "scattering merge",
            0,
            c,
            () -> new ScatterPath(BYTES, 512, INPUT),
            p -> p::refill,
            ScatterPath::tidemark),
        steady("ioctl", IoctlPath.CALLS, c, IoctlPath::new, p -> nothing(), IoctlPath::tidemark),
        steady("DMA map", 0, c, () -> new DmaMapPath(1000), p -> p::draw, DmaMapPath::tidemark),
        steady(
            "DMA map, look up",
            0,
            c,
            () -> new DmaMapPath(1000),
            p -> p::draw,
            DmaMapPath::lookUps),
        steady("DMA map, runs", 0, c, () -> new DmaMapPath(1000), p -> nothing(), DmaMapPath::runs),
        steady("marks", 0, c, () -> new MarksPath(1), p -> p::tidemark, MarksPath::take),
        steady(
            "PAGEMAP_SCAN",
            1,
            SteadyStateTest::noPagemap,
            () -> new PagemapPath(1000),
            p -> p::write,
            PagemapPath::tidemark),
        steady(
            "KVM log",
            1,
            Kvm::missing,
            () -> new KvmLogPath(1L << 30),
            p -> nothing(),
            KvmLogPath::tidemark));
  }

  /** Prints for each path that there is what it allocates. */
  static final class Program {
    public static void main(String[] arguments) throws Exception {
      for (Steady steady : paths().toList()) {
        if (steady.missing().get().isEmpty()) {
          System.out.println(steady.name() + "=" + leastAllocated(steady));
        }
      }
    }

    private static long leastAllocated(Steady steady) throws Exception {
      Job job = steady.maker().get();
      try (AutoCloseable _ = job.path()) {
        long least = Long.MAX_VALUE;
        for (int batch = 0; batch < BATCHES && least > steady.budget(); batch++) {
          long before = THREADS.getCurrentThreadAllocatedBytes();
          for (int i = 0; i < JOBS; i++) {
            job.prepare().run();
            job.job().getAsLong();
          }
          least = Math.min(least, THREADS.getCurrentThreadAllocatedBytes() - before);
        }
        return least;
      }
    }
  }

  @BeforeAll
  static void measure() throws Exception {
    Process process =
        OtherJvm.command(List.of("-Xint", "-Dtidemark.vector=forbid"), Program.class)
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    try (BufferedReader lines = process.inputReader()) {
      for (String line; (line = lines.readLine()) != null; ) {
        int equals = line.indexOf('=');
        ALLOCATED.put(line.substring(0, equals), Long.valueOf(line.substring(equals + 1)));
      }
      assertEquals(0, process.waitFor());
    } finally {
      process.destroyForcibly();
    }
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("paths")
  void allocatesNoMoreThanItsCalls(Steady steady) {
    steady.missing().get().ifPresent(Assumptions::abort);
    long bytes = ALLOCATED.get(steady.name());
    assertTrue(bytes <= steady.budget(), bytes + " bytes in " + JOBS + " jobs");
  }
}

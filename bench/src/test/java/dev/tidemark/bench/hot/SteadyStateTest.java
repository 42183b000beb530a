package dev.tidemark.bench.hot;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.sun.management.ThreadMXBean;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.lang.management.ManagementFactory;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import java.util.function.ToLongFunction;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Every hot path that goes on for as long as a migration allocates nothing, once compiled. */
class SteadyStateTest {
  private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();
  private static final BitmapInput INPUT = new BitmapInput(0.01, false);
  private static final long BYTES = 32 << 10;

  /** A path, and its job with what has to come before it. */
  record Steady(String name, Supplier<Optional<String>> missing, Supplier<Job> maker) {
    @Override
    public String toString() {
      return name;
    }
  }

  record Job(AutoCloseable path, Runnable prepare, LongSupplier job) {}

  private static <T extends AutoCloseable> Steady steady(
      String name,
      Supplier<Optional<String>> missing,
      Supplier<T> maker,
      Function<T, Runnable> prepare,
      ToLongFunction<T> job) {
    return new Steady(
        name,
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
        steady("merge", c, merge, p -> nothing(), MergePath::orCount),
        steady("merge and clear", c, merge, p -> p::refill, MergePath::orCountClear),
        steady("merge, shifted", c, merge, p -> nothing(), p -> p.orCountShifted(7)),
        steady("cardinality", c, merge, p -> nothing(), MergePath::cardinality),
        steady(
            "harvest and commit",
            c,
            () -> new HarvestPath(BYTES, INPUT),
            p -> p::refill,
            HarvestPath::tidemark),
        steady("sync", c, () -> new SyncPath(1L << 30, INPUT), p -> nothing(), SyncPath::tidemark),
        steady(
            "scattering merge",
            c,
            () -> new ScatterPath(BYTES, 512, INPUT),
            p -> p::refill,
            ScatterPath::tidemark),
        steady(
            "zero pages",
            c,
            () -> new ZeroPath(512 << 10, true),
            p -> nothing(),
            ZeroPath::tidemark),
        steady("ioctl", c, IoctlPath::new, p -> nothing(), IoctlPath::tidemark),
        steady("DMA map", c, () -> new DmaMapPath(1000), p -> p::draw, DmaMapPath::tidemark),
        steady(
            "DMA map, look up", c, () -> new DmaMapPath(1000), p -> p::draw, DmaMapPath::lookUps),
        steady("DMA map, runs", c, () -> new DmaMapPath(1000), p -> nothing(), DmaMapPath::runs),
        steady("marks", c, () -> new MarksPath(1), p -> p::tidemark, MarksPath::take),
        steady(
            "PAGEMAP_SCAN",
            SteadyStateTest::noPagemap,
            () -> new PagemapPath(1000),
            p -> p::write,
            PagemapPath::tidemark),
        steady(
            "KVM log",
            Kvm::missing,
            () -> new KvmLogPath(1L << 30),
            p -> nothing(),
            KvmLogPath::tidemark));
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("paths")
  void allocatesNothingOnceCompiled(Steady steady) throws Exception {
    steady.missing().get().ifPresent(Assumptions::abort);
    Job job = steady.maker().get();
    try (AutoCloseable path = job.path()) {
      long allocated = -1;
      long sum = 0;
      // How soon it is compiled is the JVM's to decide; that it then stays at 0 is ours.
      long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
      while (allocated != 0 && System.nanoTime() - end < 0) {
        long before = THREADS.getCurrentThreadAllocatedBytes();
        for (int i = 0; i < 50; i++) {
          job.prepare().run();
          sum += job.job().getAsLong();
        }
        allocated = THREADS.getCurrentThreadAllocatedBytes() - before;
      }
      assertEquals(0, allocated, "bytes in 50 calls, sum " + sum + ", of " + path);
    }
  }
}

package dev.tidemark.bench.jmh;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.bench.hot.Rivals;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.util.Collection;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.openjdk.jmh.profile.GCProfiler;
import org.openjdk.jmh.results.RunResult;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.ChainedOptionsBuilder;
import org.openjdk.jmh.runner.options.Options;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;
import org.openjdk.jmh.runner.options.VerboseMode;

/** Every benchmark still runs, and its rivals still come to the same results: no times here. */
class BenchmarksTest {
  private static final int SMALLEST_OBJECT = 16;

  static Stream<Arguments> benchmarks() {
    return Stream.of(
        Arguments.of(
            MergeBenchmark.class, 12, new String[][] {{"bytes", "32768"}, {"density", "0.01"}}),
        Arguments.of(ShiftedMergeBenchmark.class, 1, new String[][] {{"shift", "7"}}),
        Arguments.of(
            HarvestBenchmark.class, 4, new String[][] {{"bytes", "524288"}, {"density", "0.01"}}),
        Arguments.of(
            SyncBenchmark.class, 2, new String[][] {{"ram", "17179869184"}, {"density", "0.01"}}),
        Arguments.of(
            ScatterBenchmark.class, 3, new String[][] {{"piece", "512"}, {"density", "0.01"}}),
        Arguments.of(ZeroPagesBenchmark.class, 3, new String[][] {{"bytes", "524288"}}),
        Arguments.of(IoctlBenchmark.class, 3, new String[][] {}),
        Arguments.of(DmaMapBenchmark.class, 4, new String[][] {{"mappings", "1000"}}),
        Arguments.of(MarksBenchmark.class, 2, new String[][] {}),
        Arguments.of(StreamBenchmark.class, 2, new String[][] {{"bytes", "67108864"}}),
        Arguments.of(PagemapScanBenchmark.class, 2, new String[][] {{"every", "10"}}),
        Arguments.of(KvmLogBenchmark.class, 1, new String[][] {{"bytes", "1073741824"}}));
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("benchmarks")
  void runs(Class<?> benchmark, int methods, String[][] parameters) throws RunnerException {
    missing(benchmark).ifPresent(reason -> Assumptions.abort(reason));
    var options =
        new OptionsBuilder()
            .include(benchmark.getName().replace(".", "\\.") + "\\.")
            .forks(0)
            .warmupIterations(0)
            .measurementIterations(1)
            .measurementTime(TimeValue.milliseconds(5))
            .shouldFailOnError(true)
            .verbosity(VerboseMode.SILENT)
            .jvmArgsAppend("-Djmh.ignoreLock=true");
    for (String[] parameter : parameters) {
      options.param(parameter[0], parameter[1]);
    }
    Collection<RunResult> results = new Runner(options.build()).run();
    assertEquals(
        methods, results.stream().map(r -> r.getParams().getBenchmark()).distinct().count());
    for (RunResult result : results) {
      assertTrue(result.getPrimaryResult().getScore() > 0, result.getParams().getBenchmark());
    }
  }

  /** Tidemark's side of each benchmark that goes on for as long as a migration. */
  static Stream<Arguments> steady() {
    String[][] merge = {{"bytes", "32768"}, {"density", "0.01"}};
    String[][] harvest = {{"bytes", "524288"}, {"density", "0.01"}};
    return Stream.of(
        Arguments.of(MergeBenchmark.class, "(orCount|orCountClear|cardinality)", merge),
        Arguments.of(ShiftedMergeBenchmark.class, "orCount", new String[][] {{"shift", "7"}}),
        Arguments.of(HarvestBenchmark.class, "harvest", harvest),
        Arguments.of(
            SyncBenchmark.class,
            "tidemark",
            new String[][] {{"ram", "17179869184"}, {"density", "0.01"}}),
        Arguments.of(
            ScatterBenchmark.class,
            "tidemark",
            new String[][] {{"piece", "8192"}, {"density", "0.01"}}),
        Arguments.of(ZeroPagesBenchmark.class, "tidemark", new String[][] {{"bytes", "524288"}}),
        Arguments.of(IoctlBenchmark.class, "(call|callWithMemory)", new String[][] {}),
        Arguments.of(
            DmaMapBenchmark.class, "(changes|runs|lookUps)", new String[][] {{"mappings", "1000"}}),
        Arguments.of(MarksBenchmark.class, "(oneThread|twoThreads)", new String[][] {}),
        Arguments.of(
            PagemapScanBenchmark.class, "writeAndRound", new String[][] {{"every", "1000"}}),
        Arguments.of(KvmLogBenchmark.class, "round", new String[][] {{"bytes", "1073741824"}}));
  }

  /**
   * What {@code -prof gc} says. JMH itself allocates some KB an iteration, which is less than a
   * byte an operation of microseconds, and 5 for one of 0.2 ms. No object is smaller than 16.
   */
  @ParameterizedTest(name = "{0} {1}")
  @MethodSource("steady")
  void allocatesNothingForAnOperation(Class<?> benchmark, String methods, String[][] parameters)
      throws RunnerException {
    missing(benchmark).ifPresent(reason -> Assumptions.abort(reason));
    var options = profiled(benchmark, methods).forks(0).warmupIterations(1);
    for (String[] parameter : parameters) {
      options.param(parameter[0], parameter[1]);
    }
    Map<String, Double> allocating = Map.of();
    // How soon it is compiled is the JVM's to decide; that it then stays at nothing is ours.
    long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
    do {
      allocating = allocating(options.build());
    } while (!allocating.isEmpty() && System.nanoTime() - end < 0);
    assertEquals(Map.of(), allocating, "bytes for an operation");
  }

  /** Where C2 inlines less than it could: it does so by chance, and 40 bytes a call came of it. */
  @Test
  void aCallAllocatesNothingWhereCompiledCodeIsSeldomInlined() throws RunnerException {
    missing(IoctlBenchmark.class).ifPresent(reason -> Assumptions.abort(reason));
    Options options =
        profiled(IoctlBenchmark.class, "(call|callWithMemory)")
            .forks(1)
            .warmupIterations(3)
            .jvmArgsAppend("-Djmh.ignoreLock=true", "-XX:InlineSmallCode=150")
            .build();
    assertEquals(Map.of(), allocating(options), "bytes for an operation");
  }

  /** What few words need was left uncompiled for seconds, and made objects of vectors meanwhile. */
  @Test
  void aHarvestAllocatesNothingWhereFewWordsHaveManyEdges() throws RunnerException {
    missing(HarvestBenchmark.class).ifPresent(reason -> Assumptions.abort(reason));
    Options options =
        profiled(HarvestBenchmark.class, "harvest")
            .forks(1)
            .warmupIterations(2)
            .measurementTime(TimeValue.seconds(4))
            .param("bytes", "8388608")
            .param("density", "0.01")
            .param("clustered", "true")
            .build();
    assertEquals(Map.of(), allocating(options), "bytes for an operation");
  }

  private static ChainedOptionsBuilder profiled(Class<?> benchmark, String methods) {
    return new OptionsBuilder()
        .include(benchmark.getName().replace(".", "\\.") + "\\." + methods + "$")
        .warmupTime(TimeValue.seconds(1))
        .measurementIterations(1)
        .measurementTime(TimeValue.milliseconds(300))
        .addProfiler(GCProfiler.class)
        .shouldFailOnError(true)
        .verbosity(VerboseMode.SILENT)
        .jvmArgsAppend("-Djmh.ignoreLock=true");
  }

  /** Which of the benchmarks allocate, and how many bytes for an operation. */
  private static Map<String, Double> allocating(Options options) throws RunnerException {
    Map<String, Double> bytes =
        new Runner(options)
            .run().stream()
                .collect(
                    Collectors.toMap(
                        result -> result.getParams().id(),
                        result ->
                            result.getSecondaryResults().get("gc.alloc.rate.norm").getScore()));
    assertFalse(bytes.isEmpty());
    bytes.values().removeIf(some -> some < SMALLEST_OBJECT);
    return bytes;
  }

  private static Optional<String> missing(Class<?> benchmark) {
    if (benchmark == KvmLogBenchmark.class) {
      return Kvm.missing();
    }
    if (benchmark == PagemapScanBenchmark.class) {
      return Userfaultfd.probe()
          .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
          .or(Pagemap::missing);
    }
    return benchmark == MarksBenchmark.class ? Optional.empty() : Rivals.missing();
  }
}

package dev.tidemark.bench.jmh;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.bench.hot.Rivals;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.util.Collection;
import java.util.Optional;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.openjdk.jmh.results.RunResult;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;
import org.openjdk.jmh.runner.options.VerboseMode;

/** Every benchmark still runs, and its rivals still come to the same results: no times here. */
class BenchmarksTest {
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

package dev.tidemark.bench.cli;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Parameters;

/** Passes its arguments on to JMH. */
@Command(
    name = "jmh",
    description = "Runs JMH benchmarks; takes JMH's own options, such as -l or -h.")
final class JmhCommand implements Callable<Integer> {
  @Parameters(paramLabel = "ARG", description = "for JMH")
  private List<String> arguments = new ArrayList<>();

  @Override
  public Integer call() throws IOException {
    org.openjdk.jmh.Main.main(arguments.toArray(String[]::new));
    return Tidemark.DONE;
  }
}

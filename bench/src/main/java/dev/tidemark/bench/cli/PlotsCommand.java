package dev.tidemark.bench.cli;

import dev.tidemark.bench.hot.Rivals;
import dev.tidemark.bench.ratios.Plots;
import dev.tidemark.engine.bitmap.Bitmaps;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** Draws what the hot paths cost against size, density and alignment. */
@Command(
    name = "plots",
    description =
        "Measures the hot paths and draws their cost against size, density and alignment.",
    mixinStandardHelpOptions = true)
final class PlotsCommand implements Callable<Integer> {
  @Option(
      names = "--folder",
      defaultValue = "docs/plots",
      description = "where the SVG files go; default: ${DEFAULT-VALUE}")
  private Path folder;

  @Override
  public Integer call() throws IOException, InterruptedException {
    Rivals.missing()
        .ifPresent(
            reason -> {
              throw new IllegalStateException(reason);
            });
    Bitmaps.prove();
    Files.createDirectories(folder);
    new Plots(folder, System.out::println).draw();
    return Tidemark.DONE;
  }
}

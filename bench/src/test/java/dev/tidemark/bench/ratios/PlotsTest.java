package dev.tidemark.bench.ratios;

import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.tidemark.bench.hot.Rivals;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import javax.xml.parsers.DocumentBuilder;
import javax.xml.parsers.DocumentBuilderFactory;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.w3c.dom.Document;

/** Each plot can still be drawn: from one short sample of each point. */
class PlotsTest {
  /** How many points a line of it has. */
  private static final Map<String, Integer> POINTS =
      Map.of(
          "merge-size", 15,
          "merge-shift", 64,
          "merge-length", 61,
          "harvest-density", 13,
          "cardinality-size", 22);

  @TempDir Path folder;

  @Test
  void eachIsDrawnWithAllItsPoints() throws Exception {
    Rivals.missing().ifPresent(reason -> Assumptions.abort(reason));
    Assumptions.assumeTrue(
        Files.isExecutable(Path.of("/usr/bin/fc-list")),
        "no fonts: apt-get install fontconfig fonts-dejavu-core");
    List<String> files = new ArrayList<>();
    new Plots(folder, files::add, new Interleaved(1, 0, 0), 1).draw();
    Set<String> expected = new HashSet<>();
    POINTS.keySet().forEach(name -> expected.add(folder.resolve(name + ".svg").toString()));
    assertEquals(expected, Set.copyOf(files));
    DocumentBuilderFactory parsers = DocumentBuilderFactory.newInstance();
    // The files name a DTD on the network.
    parsers.setFeature("http://apache.org/xml/features/nonvalidating/load-external-dtd", false);
    DocumentBuilder parser = parsers.newDocumentBuilder();
    for (String name : POINTS.keySet()) {
      Document drawing = parser.parse(folder.resolve(name + ".svg").toFile());
      // Those of the first line, which only it has, and its mark in the legend.
      int circles = drawing.getElementsByTagName("circle").getLength();
      assertEquals(POINTS.get(name) + 1, circles, name);
    }
  }
}

"""stub"""
import click
@click.command("ui")
def command(): pass
